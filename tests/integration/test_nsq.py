"""NSQ as it is: several servers, servers that come and go, channels that go with their readers, and what is loaded."""

from __future__ import annotations

import json
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from batcher.embedded.jars import Unavailable
from batcher.embedded.nsq import Nsqd, NsqLookupd
from batcher.errors import CommitUnconfirmed, ConfigurationError, Unreachable
from batcher.protocols.publisher import Outgoing
from batcher.sources.nsq.gateway import NsqGateway, gateway_of
from batcher.sources.nsq.publisher import NsqPublisher
from batcher.sources.nsq.settings import Nsq
from batcher.sources.receipts.gateway import Received
from batcher.testing.clickhouse import ClickHouseServer
from tests.harness.patience import LONG, PATIENCE_S, wait_for
from tests.harness.processes import BatcherProcess, run

KILLS = 20 if LONG else 1
RECORDS = 40_000 if LONG else 6_000
MESSAGE_TIMEOUT_S = 2.0

MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
    "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
)


@pytest.fixture
def servers() -> Iterator[Callable[[Any], Any]]:
    """Return what starts a server of one's own, or skips with the reason why there is none."""
    with ExitStack() as stack:

        def start(server: Any) -> Any:
            try:
                return stack.enter_context(server)
            except Unavailable as error:
                pytest.skip(f"no NSQ: {error}")

        yield start


def options(*nsqd: Nsqd, topic: str = "", channel: str = "loader", **more: Any) -> Nsq:
    return Nsq(
        topic=topic or f"topic-{uuid.uuid4().hex}",
        channel=channel,
        nsqd=tuple(one.address for one in nsqd),
        msg_timeout=timedelta(seconds=MESSAGE_TIMEOUT_S),
        **more,
    )


def publish(to: Nsq, bodies: Sequence[bytes]) -> None:
    with closing(NsqPublisher(to)) as publisher:
        for first in range(0, len(bodies), publisher.batch):
            some = [Outgoing(body) for body in bodies[first : first + publisher.batch]]
            assert publisher.publish(some, PATIENCE_S) == []


def documents(count: int, first: int = 0) -> list[bytes]:
    return [json.dumps({"id": number}).encode() for number in range(first, first + count)]


def read(gateway: NsqGateway, count: int) -> list[Received]:
    found: list[Received] = []

    def enough() -> bool:
        found.extend(gateway.receive(1000, 1 << 24, 0.1))
        return len(found) >= count

    wait_for(enough, f"{count} messages")
    return found


def channels(nsqd: Nsqd, topic: str) -> dict[str, Any]:
    stats = json.loads(nsqd.get(f"/stats?format=json&topic={topic}"))
    return {one["channel_name"]: one for topics in stats["topics"] for one in topics["channels"]}


def test_all_servers_that_nsqlookupd_knows_are_read_and_their_depths_add_up(servers: Callable[[Any], Any]) -> None:
    lookupd = servers(NsqLookupd())
    first, second = servers(Nsqd(lookupd=lookupd)), servers(Nsqd(lookupd=lookupd))
    topic = "orders"
    publish(options(first, topic=topic), documents(30))
    publish(options(second, topic=topic), documents(30, 30))
    told = Nsq(topic=topic, channel="loader", lookupd=(lookupd.http_address,), max_in_flight=40)
    wait_for(lambda: lookupd.get(f"/lookup?topic={topic}").count(b"tcp_port") == 2, "both servers at nsqlookupd")

    with closing(gateway_of(told, longest_batch_s=1.0)) as gateway:
        gateway.open()
        first_half = read(gateway, 30)
        assert len(first_half) <= 40, "more than may be in flight"
        assert gateway.depth() == 60
        assert gateway.acknowledge([one.receipt for one in first_half], 5.0) == []
        wait_for(lambda: gateway.depth() == 60 - len(first_half), "nsqd to have read every FIN")
        found = first_half + read(gateway, 60 - len(first_half))

    assert sorted(one.value for one in found) == sorted(documents(60))


def test_a_topic_that_no_server_has_is_waited_for_and_then_told(servers: Callable[[Any], Any]) -> None:
    lookupd = servers(NsqLookupd())
    told = Nsq(topic="nobody", channel="loader", lookupd=(lookupd.http_address,))

    with closing(gateway_of(told, longest_batch_s=1.0)) as gateway, pytest.raises(Unreachable, match="topic nobody"):
        gateway.open()


def test_a_server_that_was_restarted_is_connected_to_again_and_nothing_of_it_is_lost(
    servers: Callable[[Any], Any],
) -> None:
    nsqd = servers(Nsqd())
    told = options(nsqd, max_in_flight=10)
    publish(told, documents(50))

    with closing(gateway_of(told, longest_batch_s=1.0)) as gateway:
        gateway.open()
        before = read(gateway, 10)
        assert gateway.acknowledge([one.receipt for one in before[:5]], 5.0) == []
        wait_for(lambda: channels(nsqd, told.topic or "")["loader"]["in_flight_count"] == 10, "five more")
        assert gateway.depth() == 45
        nsqd.shut_down()
        with pytest.raises(CommitUnconfirmed, match="how many messages"):
            gateway.depth()
        nsqd.start()
        after: dict[str, Received] = {}

        def all_there() -> bool:
            some = gateway.receive(1000, 1 << 24, 0.1)
            gateway.acknowledge([one.receipt for one in some], 5.0)
            after.update({one.id: one for one in some})
            return len(after) >= 45

        wait_for(all_there, "everything that was not acknowledged")
        assert list(gateway.acknowledge([one.receipt for one in before[5:]], 5.0)) == [
            one.receipt for one in before[5:]
        ]

    assert sorted(one.value for one in [*before[:5], *after.values()]) == sorted(documents(50))


def test_an_ephemeral_channel_goes_with_its_last_reader(nsqd: Nsqd) -> None:
    told = options(nsqd, channel="tail#ephemeral")
    gateway = gateway_of(told, longest_batch_s=1.0)
    gateway.open()
    assert list(channels(nsqd, told.topic or "")) == ["tail#ephemeral"]
    gateway.close()

    wait_for(lambda: channels(nsqd, told.topic or "") == {}, "the channel to go")


def test_only_the_message_that_nsqd_refuses_is_refused_and_the_rest_is_stored(servers: Callable[[Any], Any]) -> None:
    told = options(servers(Nsqd("-max-msg-size=1000", "-msg-timeout=2s")))
    with closing(NsqPublisher(told)) as publisher:
        refused = publisher.publish(
            [Outgoing(b"a"), Outgoing(b"x" * 1001), Outgoing(b"b"), Outgoing(b""), Outgoing(b"c", b"key")],
            PATIENCE_S,
        )
        refused = [*refused, *publisher.publish([Outgoing(b"later", delay_s=0.5)], PATIENCE_S)]

    assert len(refused) == 3
    assert any("too big" in one for one in refused)
    with closing(gateway_of(told, longest_batch_s=1.0)) as gateway:
        gateway.open()
        stored = read(gateway, 2)
        assert gateway.acknowledge([one.receipt for one in stored], 5.0) == []
        assert sorted(one.value for one in stored + read(gateway, 1)) == [b"a", b"b", b"later"]


def test_a_message_timeout_above_that_of_nsqd_is_one_line(nsqd: Nsqd) -> None:
    told = options(nsqd).model_copy(update={"msg_timeout": timedelta(hours=1)})

    with (
        pytest.raises(ConfigurationError, match=r"msg timeout.*look at --nsq\.msg-timeout"),
        closing(gateway_of(told, longest_batch_s=1.0)) as gateway,
    ):
        gateway.open()


def test_connections_are_encrypted_where_that_is_asked_for(servers: Callable[[Any], Any], tmp_path: Path) -> None:
    made = subprocess.run(
        MAKE_CERTIFICATE.split(),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no certificate: {made.stderr.decode()[-200:]}")
    nsqd = servers(Nsqd(f"-tls-cert={tmp_path}/cert.pem", f"-tls-key={tmp_path}/key.pem", "-tls-required=tcp-https"))
    plain = options(nsqd)
    told = options(nsqd, topic=plain.topic or "", tls=True, ca=str(tmp_path / "cert.pem"))
    publish(told, documents(500))

    with closing(gateway_of(told, longest_batch_s=1.0)) as gateway:
        gateway.open()
        found = read(gateway, 500)
        assert gateway.acknowledge([one.receipt for one in found], 5.0) == []
        wait_for(lambda: channels(nsqd, told.topic or "")["loader"]["in_flight_count"] == 0, "every FIN")
    with (
        pytest.raises(ConfigurationError, match=r"give --nsq\.tls"),
        closing(gateway_of(plain, longest_batch_s=1.0)) as gateway,
    ):
        gateway.open()
    untrusting = told.model_copy(update={"ca": None})
    with (
        pytest.raises(ConfigurationError, match=r"certificate of nsqd .* --nsq\.ca"),
        closing(gateway_of(untrusting, longest_batch_s=1.0)) as gateway,
    ):
        gateway.open()


def flags_of(told: Nsq) -> tuple[str, ...]:
    return (
        *("--source", "nsq", "--nsq.topic", told.topic or "", "--nsq.channel", told.channel or ""),
        *("--nsq.nsqd", ",".join(told.nsqd), "--nsq.msg-timeout", f"{MESSAGE_TIMEOUT_S:.0f}s"),
        *("--nsq.max-in-flight", "500", "--batch.max-wait", "200ms", "--until-eof"),
    )


def run_through_kills(*flags: str) -> BatcherProcess:
    for _ in range(KILLS):
        with BatcherProcess(*flags) as process:
            process.wait_for("batch_written", count=2)
            process.kill()
    with BatcherProcess(*flags) as process:
        assert process.wait(300.0) == 0, process.stderr[-2000:]
    return process


@pytest.mark.crash
def test_nothing_is_lost_in_parquet_through_kills_and_every_row_has_its_messages_name(
    nsqd: Nsqd, tmp_path: Path
) -> None:
    told = options(nsqd)
    publish(told, documents(RECORDS))

    run_through_kills(
        *(*flags_of(told), "--sink", "parquet", "--parquet.path", str(tmp_path / "out")),
        *("--parquet.coordinates", "message_id"),
    )

    rows = ds.dataset(tmp_path / "out").to_table()
    pairs = set(zip(rows["id"].to_pylist(), rows["_message_id"].to_pylist(), strict=True))
    assert sorted(number for number, _ in pairs) == list(range(RECORDS)), "a message was lost, or had two names"
    # The control: nothing recognises here what comes again, so with many kills something has to come twice.
    assert not LONG or rows.num_rows > RECORDS

    assert channels(nsqd, told.topic or "")["loader"]["depth"] == 0


@pytest.mark.crash
def test_nothing_is_lost_in_clickhouse_through_kills_and_what_comes_again_is_recognised_by_its_name(
    nsqd: Nsqd, clickhouse_server: ClickHouseServer
) -> None:
    told = options(nsqd)
    table = f"t_{uuid.uuid4().hex}"
    clickhouse_server.query(f"CREATE TABLE {table} (id UInt64, _message_id String) ENGINE = MergeTree ORDER BY id")
    publish(told, documents(RECORDS))

    run_through_kills(
        *flags_of(told), "--sink", "clickhouse", "--clickhouse.dsn", clickhouse_server.dsn, "--clickhouse.table", table
    )

    [[rows, ids, names]] = clickhouse_server.query(
        f"SELECT count(), uniqExact(id), uniqExact(_message_id) FROM {table}"
    )

    assert (rows, ids, names) == (RECORDS, RECORDS, RECORDS)


def test_more_workers_come_where_more_is_left_to_read_and_a_stop_loses_nothing(nsqd: Nsqd, tmp_path: Path) -> None:
    told = options(nsqd)
    publish(told, documents(3000))
    scaled = ("--workers", "1..3", "--worker-backlog", "1000", "--batch.rate", "300/s")
    where = ("--sink", "parquet", "--parquet.path", str(tmp_path / "out"))
    flags = [flag for flag in flags_of(told) if flag != "--until-eof"]
    with BatcherProcess(*flags, *where, *scaled) as process:
        event = process.wait_for("workers_scaled")
        process.wait_for("batch_written", where=lambda one: one.get("worker") not in (0, None))
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.stderr[-2000:]
    assert (event["before"], event["workers"]) == (1, 3)
    with BatcherProcess(*flags_of(told), *where) as rest:
        assert rest.wait() == 0

    ids = ds.dataset(tmp_path / "out").to_table()["id"].to_pylist()
    assert sorted(ids) == list(range(3000))


def test_servers_that_do_not_answer_end_the_start_with_69_and_bad_names_with_2(tmp_path: Path) -> None:
    where = ("--sink", "parquet", "--parquet.path", str(tmp_path / "out"), "--start-timeout", "1s")
    away = run("--source", "nsq", "--nsq.topic", "t", "--nsq.channel", "c", "--nsq.nsqd", "127.0.0.1:1", *where)
    named = run("--source", "nsq", "--nsq.topic", "a b", "--nsq.channel", "c", "--nsq.nsqd", "127.0.0.1:1", *where)

    assert named.code == 2, named.stderr
    assert "--nsq.topic" in named.stderr
    assert away.code == 69, away.stderr
    assert "no server of NSQ answers: 127.0.0.1:1: Connection refused" in away.stderr
