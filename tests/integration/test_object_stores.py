"""Parquet in object stores: what a store may answer, how slowly, or not at all, and what becomes of a write.

moto is the store in every run, behind a proxy that fails as told. VersityGW, which checks signatures as AWS does,
says what a wrong account or region is answered; it is there where Go is. AWS itself, Google's and Azure's stores are
not tested.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pytest
import structlog

from batcher.cli.main import main
from batcher.errors import SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.records import Block, Partition
from batcher.testing.values import EVENTS_0, make_block
from sinks.parquet import one_root
from sinks.parquet.schemas import PIN
from sinks.parquet.sink import ParquetSink
from tests.harness.patience import LONG
from tests.harness.processes import BatcherProcess
from tests.harness.store_proxy import StoreFault, StoreProxy
from tests.harness.stores import ACCESS_KEY, ENVIRONMENT, REGION, SECRET_KEY, S3Server, moto, versitygw

TABLE: Final = pa.table({"id": [1, 2, 3], "country": ["DE", "FR", "DE"]})
COORDINATES: Final = ("_partition", "_offset", "_timestamp")

ACCOUNT: Final = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "region": REGION}

SLOW_S: Final = 5.0 if LONG else 3.3
"""Longer than the three seconds after which the client before this one gave up."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with moto() as running:
        yield running


@pytest.fixture(scope="module")
def gateway() -> Iterator[S3Server]:
    with versitygw() as (_, running):
        yield running


@pytest.fixture
def bucket(server: S3Server) -> str:
    return server.bucket(f"bucket-{uuid4().hex[:8]}")


@pytest.fixture
def proxy(server: S3Server) -> Iterator[StoreProxy]:
    with StoreProxy(server.endpoint) as running:
        yield running


@pytest.fixture
def new_sink(bucket: str, proxy: StoreProxy) -> Iterator[Callable[..., ParquetSink]]:
    """Return what makes a sink behind the proxy, with options of the store, and other settings in `more`."""
    made: list[ParquetSink] = []

    def make(path: str = "events", *, more: Mapping[str, object] = {}, **options: str) -> ParquetSink:
        made.append(sink_at(proxy.endpoint, f"{bucket}/{path}", more=more, **options))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


@pytest.fixture
def stored(server: S3Server, bucket: str) -> Callable[[], list[str]]:
    """Return what returns the files in the bucket, and sees that no upload in parts is open there."""

    def look() -> list[str]:
        assert server.uploads(bucket) == []
        return files(server, bucket)

    return look


def sink_at(endpoint: str, place: str, *, more: Mapping[str, object] = {}, **options: str) -> ParquetSink:
    return one_root({"path": f"s3://{place}", "option": {**ACCOUNT, "endpoint": endpoint, **options}, **more})


def opened(sink: ParquetSink) -> ParquetSink:
    sink.open()
    sink.pin(TABLE.schema)
    return sink


def block(**arguments: Any) -> Block:
    return make_block(TABLE, coordinates=COORDINATES, **arguments)


def held(sink: ParquetSink) -> list[int]:
    offsets: list[int] = sink.present(EVENTS_0, 0, 99).to_pylist()
    return offsets


def files(server: S3Server, bucket: str) -> list[str]:
    return [key for key in server.objects(bucket) if key.endswith(".parquet")]


def test_a_file_is_one_put_and_no_upload_in_parts(
    new_sink: Callable[..., ParquetSink], proxy: StoreProxy, server: S3Server, bucket: str
) -> None:
    sink = opened(new_sink(more={"compression": "none"}))
    proxy.counts.clear()
    # More than the eight MiB at which clients begin to send parts.
    texts = [os.urandom(1 << 19).hex() for _ in range(9)]
    table = pa.table({"id": range(9), "country": texts})
    puts = proxy.counts["PUT"]
    sink.write(make_block(table, coordinates=COORDINATES))
    assert proxy.counts["PUT"] - puts == 1
    assert proxy.counts["POST"] == 0
    assert server.uploads(bucket) == []
    assert len(files(server, bucket)) == 1


def test_a_store_that_takes_its_time_is_waited_for(new_sink: Callable[..., ParquetSink], proxy: StoreProxy) -> None:
    sink = opened(new_sink())
    proxy.set(StoreFault("PUT", delay=SLOW_S))
    puts = proxy.counts["PUT"]
    sink.write(block())
    assert proxy.counts["PUT"] - puts == 1, "an answer that takes long is no reason to ask again"
    assert held(sink) == [0, 1, 2]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_request_without_an_answer_is_given_up_once_and_told(
    method: str, new_sink: Callable[..., ParquetSink], proxy: StoreProxy
) -> None:
    sink = opened(new_sink(timeout="300ms"))
    before = proxy.counts[method]
    proxy.set(StoreFault(method, lost=True))
    asked = partial(sink.max_offset_above, {EVENTS_0: 0}) if method == "GET" else partial(sink.write, block())
    with pytest.raises(SinkUnavailable, match="no answer in time"):
        asked()
    assert proxy.counts[method] - before == 1, "retries are the pipeline's, with a line in the log"


def test_an_answer_that_trickles_is_given_up_too(new_sink: Callable[..., ParquetSink], proxy: StoreProxy) -> None:
    sink = opened(new_sink(timeout="500ms"))
    sink.write(block())
    proxy.set(StoreFault("GET", ".parquet", slow=0.1))
    with pytest.raises(SinkUnavailable, match="no answer in time"):
        held(sink)


@pytest.mark.parametrize(
    "fault",
    [
        StoreFault("PUT", reset_before=True, times=1),
        StoreFault("PUT", reset_after=True, times=1),
        StoreFault("PUT", lost=True, times=1),
        StoreFault("PUT", status=503, code="SlowDown", times=1),
        StoreFault("PUT", status=500, code="InternalError", times=1),
        StoreFault("PUT", status=429, code="TooManyRequests", times=1),
        StoreFault("HEAD", status=503, code="SlowDown", times=1),
    ],
    ids=["reset before", "reset after", "lost", "503", "500", "429", "503 of a HEAD"],
)
@pytest.mark.parametrize("by", [(), ("country",)], ids=["flat", "hive"])
def test_a_write_that_fails_in_any_way_is_completed_by_the_same_block(
    by: tuple[str, ...],
    fault: StoreFault,
    new_sink: Callable[..., ParquetSink],
    proxy: StoreProxy,
    stored: Callable[[], list[str]],
) -> None:
    sink = opened(new_sink(timeout="1s", more={"partition_by": by}))
    proxy.set(fault)
    with pytest.raises(SinkUnavailable):
        sink.write(block())
    sink.write(block())
    assert held(sink) == [0, 1, 2]
    assert len(stored()) == (2 if by else 1)


FAILED: Final = {
    "before": StoreFault("PUT", reset_before=True, times=1),
    "after": StoreFault("PUT", reset_after=True, times=1),
    "lost": StoreFault("PUT", lost=True, times=1),
}


@pytest.mark.parametrize("how", FAILED)
def test_a_pin_whose_answer_is_lost_is_there_once_and_holds(
    how: str, new_sink: Callable[..., ParquetSink], proxy: StoreProxy, server: S3Server, bucket: str
) -> None:
    sink = new_sink(timeout="1s")
    sink.open()
    proxy.set(FAILED[how])
    with pytest.raises(SinkUnavailable):
        sink.pin(TABLE.schema)
    assert sink.pin(TABLE.schema).names == TABLE.schema.names
    assert server.objects(bucket) == [f"events/{PIN}"]


def test_of_workers_that_begin_a_root_in_the_same_instant_one_decides_the_schema(
    new_sink: Callable[..., ParquetSink], proxy: StoreProxy
) -> None:
    workers = [new_sink() for _ in range(8)]
    for worker in workers:
        worker.open()
    # All have looked before the first of them has written.
    proxy.set(StoreFault("PUT", delay=0.3))
    # The same column with eight types: each would be a root of its own.
    types = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.bool_()]
    with ThreadPoolExecutor(len(workers)) as pool:
        schemas = list(
            pool.map(lambda pair: pair[0].pin(pa.schema([("a", pair[1])])), zip(workers, types, strict=True))
        )
    assert all(schema.equals(schemas[0]) for schema in schemas), schemas


def test_a_root_whose_shown_schema_was_replaced_meanwhile_shows_the_newest(
    new_sink: Callable[..., ParquetSink], proxy: StoreProxy, server: S3Server, bucket: str
) -> None:
    slow, fast = opened(new_sink()), opened(new_sink())
    proxy.set(StoreFault("PUT", "_schema.arrow", delay=1.0, times=1))
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(slow.evolve, None, [pa.field("first", pa.int64())])
        while not any("_schema.00002" in start for start in proxy.starts):
            time.sleep(0.01)
        fast.evolve(None, [pa.field("first", pa.int64()), pa.field("second", pa.int64())])
        late.result()
    shown = pa.ipc.open_file(pa.py_buffer(server.get(bucket, f"events/{PIN}"))).schema
    assert shown.names == ["id", "country", "first", "second"]


@pytest.mark.parametrize(
    "fault",
    [StoreFault("PUT", deaf=True), StoreFault("PUT", PIN, status=501, code="NotImplemented", times=1)],
    ids=["it ignores conditions", "it refuses conditions"],
)
def test_a_store_without_conditions_is_used_and_named(
    fault: StoreFault, new_sink: Callable[..., ParquetSink], proxy: StoreProxy, server: S3Server, bucket: str
) -> None:
    proxy.set(fault)
    with structlog.testing.capture_logs() as logs:
        sink = opened(new_sink())
        sink.evolve(None, [pa.field("more", pa.int64())])
    assert [one["event"] for one in logs] == ["no_exclusive_create"]
    assert "two schemas" in logs[0]["hint"]
    sink.write(block())
    assert held(sink) == [0, 1, 2]


def test_directories_go_up_beside_each_other(new_sink: Callable[..., ParquetSink], proxy: StoreProxy) -> None:
    table = pa.table({"id": range(40), "part": [str(number) for number in range(40)]})
    sink = new_sink(uploads="16", more={"partition_by": ("part",)})
    sink.open()
    sink.pin(table.schema)
    proxy.set(StoreFault("PUT", delay=0.3))
    proxy.most_at_once = 0
    sink.write(make_block(table, coordinates=COORDINATES))
    assert 8 <= proxy.most_at_once <= 16
    assert held(sink) == list(range(40))


def test_what_lies_below_the_committed_offset_is_not_listed(
    new_sink: Callable[..., ParquetSink], proxy: StoreProxy, server: S3Server, bucket: str
) -> None:
    sink = opened(new_sink())
    written = block()
    sink.write(written)
    content = server.get(bucket, files(server, bucket)[0])
    for number in range(20):
        start = 1_000_000 + number * 100
        for topic in ("another", "zeta"):
            server.put(bucket, f"events/{topic}+00000+{start:020d}-{start + 99:020d}.parquet", content)
    proxy.starts.clear()
    assert sink.max_offset_above({EVENTS_0: 3}) == {}
    listings = [start for start in proxy.starts if "list-type=2" in start]
    assert len(listings) == 2, "one for what is behind the position, one for a file that reaches across it"
    assert all("start-after=" in start for start in listings)
    another = Partition("another", 0)
    assert sink.max_offset_above({another: 1_000_050, EVENTS_0: 1}) == {another: 1_001_999, EVENTS_0: 2}


def test_options_of_storage_reach_the_objects(
    new_sink: Callable[..., ParquetSink], server: S3Server, bucket: str
) -> None:
    sink = opened(new_sink(storage_class="STANDARD_IA", server_side_encryption="AES256"))
    sink.write(block())
    [name] = files(server, bucket)
    head = server.client.head_object(Bucket=bucket, Key=name)
    assert (head["StorageClass"], head["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")
    # It is read at each start, and so stays where reading costs nothing.
    assert "StorageClass" not in server.client.head_object(Bucket=bucket, Key=f"events/{PIN}")


REFUSED: Final[Mapping[str, tuple[dict[str, str], str]]] = {
    "region": ({"region": "eu-west-1"}, '400 AuthorizationHeaderMalformed: .*expecting "us-east-1": give the region'),
    "key": ({"access_key_id": "nobody"}, "404 XAdminUserNotFound: .*: check the credentials"),
    "secret": ({"secret_access_key": "hunter2"}, "403 SignatureDoesNotMatch: .*: check the credentials"),
    "token": ({"session_token": "hunter2"}, "400 InvalidToken: .*: renew the credentials"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_account_is_one_line_in_the_words_of_the_store(
    options: dict[str, Any], said: str, gateway: S3Server
) -> None:
    name = f"bucket-{uuid4().hex[:8]}"
    gateway.bucket(name)
    assert_refused(lambda: sink_at(gateway.endpoint, f"{name}/events", **options).open(), said)


def test_a_bucket_that_is_not_there_and_an_object_in_place_of_the_prefix_are_one_line(
    new_sink: Callable[..., ParquetSink], server: S3Server, bucket: str, gateway: S3Server
) -> None:
    for one in (server, gateway):
        sink = sink_at(one.endpoint, "no-such-bucket/events")
        assert_refused(sink.open, "404 NoSuchBucket: .*: check the name of the bucket, or make it")
    server.put(bucket, "events", b"x")
    assert_refused(new_sink().open, "s3://[^ ]+/events is an object, not a prefix: choose another")
    name = gateway.bucket(f"bucket-{uuid4().hex[:8]}")
    gateway.put(name, "a", b"x")
    below = sink_at(gateway.endpoint, f"{name}/a/b")
    below.open()
    assert_refused(lambda: below.pin(TABLE.schema), "409 ObjectParentIsFile: .*choose another path")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            StoreFault("PUT", status=403, code="AccessDenied"),
            "403 AccessDenied: Access Denied: give this user",
        ),
        (StoreFault("", status=403, code="RequestTimeTooSkewed"), "403 RequestTimeTooSkewed: .*: set the clock"),
        (StoreFault("", status=400, code="ExpiredToken"), "400 ExpiredToken: The provided token has expired.*: renew"),
        (StoreFault("PUT", status=411, code="MissingContentLength"), "411 MissingContentLength: .*: check bucket"),
        (StoreFault("PUT", status=400, code="InvalidStorageClass"), "400 InvalidStorageClass: .*: check bucket"),
        (StoreFault("PUT", status=409, code="InvalidBucketState"), "409 InvalidBucketState: .*: check bucket"),
    ],
    ids=lambda value: value.code if isinstance(value, StoreFault) else "",
)
def test_what_a_store_refuses_is_a_setting_in_its_own_words(
    fault: StoreFault, said: str, new_sink: Callable[..., ParquetSink], proxy: StoreProxy
) -> None:
    sink = opened(new_sink(more={"partition_by": ("country",)}))
    proxy.set(fault)
    assert_refused(lambda: sink.write(block()), said)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_waited_for(status: int, new_sink: Callable[..., ParquetSink], proxy: StoreProxy) -> None:
    proxy.set(StoreFault("", status=status, code="Busy"))
    with pytest.raises(Unreachable, match=f"opening s3://.*: {status} Busy"):
        new_sink().open()


def test_nothing_of_a_key_or_a_secret_is_in_an_error(new_sink: Callable[..., ParquetSink], proxy: StoreProxy) -> None:
    table = pa.table({"id": [1], "name": ["hunter2"]})
    sink = new_sink(more={"partition_by": ("name",)})
    sink.open()
    sink.pin(table.schema)
    for fault in (StoreFault("PUT", status=403, code="AccessDenied"), StoreFault("PUT", reset_before=True)):
        proxy.set(fault)
        with pytest.raises((SinkMisconfigured, SinkUnavailable)) as caught:
            sink.write(make_block(table, coordinates=COORDINATES))
        assert "hunter2" not in str(caught.value)
        assert SECRET_KEY not in str(caught.value)


def test_keys_in_a_file_that_changes_are_taken_up_without_a_new_start(
    gateway: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = gateway.bucket(f"bucket-{uuid4().hex[:8]}")
    keys = tmp_path / "credentials"
    # The tests of SQS have a region of their own, for a whole process.
    region = ("AWS_REGION", "AWS_DEFAULT_REGION")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", *region):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text(f"[profile loader]\nregion = {REGION}\n")

    def say(secret: str) -> None:
        keys.write_text(f"[loader]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n")

    say(SECRET_KEY)
    sink = one_root({"path": f"s3://{name}/p", "option": {"profile": "loader", "endpoint": gateway.endpoint}})
    opened(sink)
    # The client asks for keys ten times a second at most.
    time.sleep(0.2)
    say("revoked")
    assert_refused(lambda: sink.write(block()), "SignatureDoesNotMatch")
    time.sleep(0.2)
    say(SECRET_KEY)
    sink.write(block())
    assert held(sink) == [0, 1, 2]
    sink.close()


HELD: Final = {
    "the listing at the start": StoreFault("GET", "list-type=2", lost=True),
    "the PUT of a file": StoreFault("PUT", ".parquet", lost=True),
    "the object at the start": StoreFault("HEAD", lost=True),
    "the schema at the start": StoreFault("GET", "_schema.arrow", lost=True),
    "the schema's PUT": StoreFault("PUT", "_schema.arrow", lost=True),
    "the HEAD of a file": StoreFault("HEAD", ".parquet", lost=True),
}


@pytest.mark.parametrize("held_back", list(HELD) if LONG else list(HELD)[:2])
def test_a_stop_is_heard_while_a_store_does_not_answer(
    held_back: str, bucket: str, proxy: StoreProxy, tmp_path: Path
) -> None:
    queue = str(tmp_path / "q.db")
    assert main(["queue", "create", "--queue.path", queue]) == 0
    assert main(["queue", "publish", '{"id": 1}', "--queue.path", queue]) == 0
    fault = HELD[held_back]
    proxy.set(fault)
    # Each call would take ten minutes.
    options = {"endpoint": proxy.endpoint, "timeout": "10m"}
    with BatcherProcess(
        *("--source", "queue", "--queue.path", queue, "--queue.group", "g"),
        *("--sink", "parquet", "--parquet.path", f"s3://{bucket}/events", "--batch.max-wait", "100ms"),
        *(word for name, value in options.items() for word in ("--parquet.option", f"{name}={value}")),
        *("--stop-timeout", "2s", "--dlq.path", str(tmp_path / "dead")),
        environment=ENVIRONMENT,
    ) as running:
        while not any(start.startswith(fault.method) and fault.path in start for start in proxy.starts):
            assert running.exit_code is None, running.summary
            time.sleep(0.05)
        running.signal(signal.SIGTERM)
        assert running.wait(60) == 75


def assert_refused(call: Callable[[], object], said: str) -> None:
    """Check that a call raises a fault of the settings that says so, in one line and without secrets."""
    with pytest.raises(SinkMisconfigured) as caught:
        call()
    text = str(caught.value)
    assert re.search(said, text), text
    assert "\n" not in text
    assert not re.search(r"hunter2|country=|not-a-secret", text), text
