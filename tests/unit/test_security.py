"""Secrets and payloads stay where they belong, names are only names, and nothing from outside can forge a line."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import textwrap
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest

import sinks
from batcher.cli.support import wiring
from batcher.cli.verbs import run as command
from batcher.core.buffer import FlushPolicy
from batcher.dead_letters.directory import DirectoryDeadLetterQueue, read_letters
from batcher.dead_letters.encoding import from_fields
from batcher.engine.pipeline import Pipeline
from batcher.engine.retry import RetryPolicy
from batcher.errors import BatcherError, BlockRejected, RowsRejected, SinkMisconfigured, SinkUnavailable
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.protocols import DeadLetterQueue, Sink
from batcher.records import Block, Headers, Partition, Rejection
from batcher.settings import Settings
from batcher.telemetry import logs
from batcher.telemetry.http import WebServer
from batcher.telemetry.metrics import Metrics
from batcher.testing.clickhouse import ClickHouseServer, EmbeddedEngine, embedded_engine_missing
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource
from batcher.testing.values import make_block, make_records
from tests.harness.processes import Ending, run

CANARY = "canary-9f3a"
"""Part of every secret here."""

AWKWARD = f'{CANARY}-p@ss/w"or\\d é%20'
"""A password that looks different in a URL, in JSON and in a `repr`: what they have in common is CANARY."""

EVENTS = Partition("events", 0)


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Yield a port of loopback that is taken and at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """Return variables that hold secrets in each of the ways there are."""
    files = {}
    for name, text in {
        "BATCHER_CLICKHOUSE_PASSWORD_FILE": AWKWARD,
        "BATCHER_KAFKA_OPTIONS_FILE": f"sasl.password={CANARY}-1,ssl.key.password={CANARY}-2,sasl.username={CANARY}-3",
    }.items():
        file = tmp_path / name.lower()
        file.write_text(text + "\n")
        files[name] = str(file)
    return {
        **files,
        "BATCHER_CLICKHOUSE_DSN": f"http://loader:{CANARY}-4@127.0.0.1:1/db?password={CANARY}-5",
        "BATCHER_CLICKHOUSE_SETTINGS": f"some_token={CANARY}-6",
        "BATCHER_PARQUET_PATH": f"s3://id:{CANARY}-7@bucket/prefix?secret_key={CANARY}-8",
        "BATCHER_OPTIONS": f"password={CANARY}-9,api_token={CANARY}-10",
    }


def unsaid(done: Ending) -> str:
    """Return what was said; fail if a secret was."""
    said = done.stdout + done.stderr
    assert CANARY not in said
    return said


KAFKA = ("-b", "127.0.0.1:1", "-t", "events", "-g", "loaders")


@pytest.mark.parametrize("argv", [["config", "show"], ["config", "show", "--json"], ["--help"], [*KAFKA, "-X", "dump"]])
def test_no_verb_shows_a_secret_of_the_settings(argv: list[str], secrets: dict[str, str]) -> None:
    done = run(*argv, environment=secrets)
    assert done.code == 0, done.stderr
    assert len(unsaid(done)) > 100


@pytest.mark.parametrize("shown", ["json", "console"])
def test_a_run_that_finds_nobody_at_the_target_shows_no_secret(
    shown: str, secrets: dict[str, str], dead_port: int
) -> None:
    argv = ["run", *KAFKA, "--sink", "clickhouse", "--clickhouse.table", "t", "--log.format", shown, "-v", "--json"]
    dsn = f"http://loader:{quote(AWKWARD, safe='')}@127.0.0.1:{dead_port}/db"
    done = run(*argv, "--clickhouse.dsn", dsn, "--start-timeout", "0s", environment=secrets)
    assert done.code == 69, done.stderr
    assert f"127.0.0.1:{dead_port}" in unsaid(done)


SPY = """
    import json, os, sys
    from pathlib import Path
    from batcher.errors import SinkMisconfigured

    def children():
        found = []
        for task in Path("/proc/self/task").iterdir():
            found += [Path(f"/proc/{pid}/cmdline").read_text() for pid in (task / "children").read_text().split()]
        return found

    def listening():
        # What this process has open, among what anybody listens at.
        ours = {os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and link.exists()}
        rows = [line.split() for name in ("tcp", "tcp6") if Path(f"/proc/net/{name}").exists()
                for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
        return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in ours]

    class Spy:
        def __init__(self, options):
            self.options = options

        def open(self):
            facts = {"argv": Path("/proc/self/cmdline").read_text(), "children": children(), "listens": listening()}
            Path("facts.json").write_text(json.dumps(facts))
            secret = self.options["password"]
            if self.options["how"] == "refuse":
                raise SinkMisconfigured(f"the driver says {secret!r} is wrong\\nbatcher: forged")
            try:
                raise ValueError(f"http://user:{secret}@host refused {secret}")
            except ValueError as error:
                raise KeyError({"password": secret}) from error

        def write(self, block):
            pass

        def close(self):
            pass
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize("shown", ["json", "console"])
@pytest.mark.parametrize(("how", "code"), [("crash", 1), ("refuse", 78)])
def test_a_crash_shows_its_traceback_and_no_secret_and_no_process_has_one_among_its_arguments(
    shown: str, how: str, code: int, secrets: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "spy.py").write_text(textwrap.dedent(SPY))
    (tmp_path / "options").write_text(f"password={AWKWARD},how={how}")
    environ = {**secrets, "BATCHER_OPTIONS_FILE": str(tmp_path / "options")}
    del environ["BATCHER_OPTIONS"]
    argv = ["run", *KAFKA, "--sink", "spy:Spy", "--log.format", shown, "-v"]
    done = run(*argv, environment=environ, directory=tmp_path)
    assert done.code == code, done.stderr
    said = unsaid(done)
    assert ("Traceback" in said) is (how == "crash")
    assert not [line for line in said.splitlines() if line.startswith("batcher: forged")]
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert CANARY not in facts["argv"]
    assert facts["children"] == []
    # Nothing listens unless it is asked for.
    assert facts["listens"] == []


@pytest.mark.parametrize(
    "argv",
    [
        ["--clickhouse.passwrd", CANARY],
        [f"--clickhouse.passwrd={CANARY}"],
        ["--clickhouse.password", "=", CANARY],
        ["--clickhouse.dsn", f"http://u:{CANARY}@h:port/d", "--clickhouse.table", "t", "--sink", "clickhouse", *KAFKA],
        ["--clickhouse.dsn", f"ftp://u:{CANARY}@h/d", "--clickhouse.table", "t", "--sink", "clickhouse", *KAFKA],
        ["--parquet.path", f"nosuch://u:{CANARY}@h/d", "--sink", "parquet", *KAFKA],
        ["-b", f"etl:{CANARY}@h:9092", "--sink", "null"],
        ["-X", f"sasl.password {CANARY}"],
        ["-X", f"ssl.providers={CANARY}", "--sink", "null", *KAFKA],
        ["-X", f"sasl.passwrd={CANARY}", "--sink", "null", *KAFKA],
        ["--options", f"password:{CANARY}"],
        ["--batch.max-wait", CANARY],
        ["--batch.max-rows", CANARY],
    ],
    ids=lambda argv: " ".join(argv[:2]).replace(CANARY, "…")[:50],
)
def test_a_command_line_that_is_refused_is_not_repeated(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from batcher.cli import main as cli

    code = cli.main(argv)
    captured = capsys.readouterr()
    assert code in {2, 78}
    assert CANARY not in captured.out + captured.err
    assert captured.err


@pytest.mark.parametrize(
    "text",
    [
        f'[clickhouse]\npassword = "{CANARY}',
        f'[clickhouse]\npassword = ["{CANARY}"]',
        f'[clickhouse]\npasswrd = "{CANARY}"',
        f'[kafka]\noptions = "{CANARY}"',
        f'[kafka.options]\n"sasl.password" = ["{CANARY}"]',
        f'clickhouse = "{CANARY}"',
    ],
)
def test_a_file_that_is_refused_is_not_repeated(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from batcher.cli import main as cli

    (tmp_path / "c.toml").write_text(text)
    assert cli.main(["-c", str(tmp_path / "c.toml")]) in {2, 78}
    captured = capsys.readouterr()
    assert CANARY not in captured.out + captured.err


@pytest.mark.parametrize(
    "spelled", [AWKWARD, repr(AWKWARD), json.dumps(AWKWARD), quote(AWKWARD), quote(AWKWARD, safe="")]
)
def test_a_secret_is_hidden_however_it_is_spelled(spelled: str) -> None:
    logs.hide([AWKWARD])
    assert CANARY not in logs.scrub(f"the driver says {spelled} is wrong")


def test_nothing_listens_by_default() -> None:
    assert Settings().http.addr is None
    assert wiring.metrics_of(Settings()) is None


def test_a_property_that_loads_code_ends_the_run_before_anything_is_connected(dead_port: int, tmp_path: Path) -> None:
    proof = tmp_path / "loaded.so"
    for name in ("plugin.library.paths", "ssl.engine.location", "ssl.providers"):
        argv = ["-b", f"127.0.0.1:{dead_port}", "-t", "t", "-g", "g", "--sink", "null", "-X", f"{name}={proof}"]
        done = run(*argv)
        assert done.code == 2, done.stderr
        assert f"-X {name} is refused" in done.stderr
        assert str(proof) not in done.stderr


# What is said while a pipeline runs.


class Plant:
    """A pipeline over a log in memory and the real JSON decoder, as `batcher run` would have it."""

    def __init__(self, sink: Sink, partition: Partition = EVENTS, queue: DeadLetterQueue | None = None) -> None:
        self.log = MemoryLog([partition])
        self.metrics = Metrics("test")
        self.pipeline = Pipeline(
            MemorySource(self.log, until_eof=True),
            sink,
            JsonFormat(JsonOptions(on_unknown="reject")),
            name="loaders",
            dead_letters=queue,
            flush=FlushPolicy(max_rows=10, max_wait_s=0.02),
            retry=RetryPolicy(wait_s=0.001, max_wait_s=0.001),
            subscribers=[self.metrics],
        )
        self.metrics.watch(self.pipeline.status)

    def produce(
        self,
        partition: Partition,
        values: list[bytes | str | None],
        keys: list[bytes | None] | None = None,
        headers: list[Headers | None] | None = None,
    ) -> None:
        offsets = self.log.produce(partition, values)
        self.log.runs[partition][-1] = make_records(
            values, partition=partition, first_offset=offsets.start, keys=keys, headers=headers
        )

    def run(self, monkeypatch: pytest.MonkeyPatch, shown: logs.Format, level: str = "info") -> int:
        """Run as the verb does, and return its exit code."""
        monkeypatch.setattr(wiring, "pipeline_of", lambda *_: self.pipeline)
        monkeypatch.setattr(command, "tune_collector", lambda: None)
        logs.setup(shown, level)
        return command.run(Settings(), for_people=shown == "console")

    def answers(self) -> str:
        """Return what the endpoints say now."""

        def alive() -> bool:
            return self.pipeline.alive

        def ready() -> tuple[bool, str]:
            return self.pipeline.ready

        server = WebServer("127.0.0.1:0", self.metrics, self.pipeline.status, alive, ready)
        server.start()
        said = ""
        try:
            for path in ("/metrics", "/status", "/readyz", "/livez", f"/{CANARY[:3]}"):
                connection = http.client.HTTPConnection(server.addr, timeout=10)
                connection.request("GET", path)
                said += connection.getresponse().read().decode()
                connection.close()
        finally:
            server.stop()
        return said


PAYLOAD = "payload-77be"

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string()), ("at", pa.timestamp("ms"))])

BAD: list[bytes | str | None] = [
    f'{{"id":"{PAYLOAD}"}}',
    f'{{"id":1,"at":"{PAYLOAD}"}}',
    f'{{"id":1,"name":"{PAYLOAD}"',
    PAYLOAD,
    f'"{PAYLOAD}"',
    f'{{"id":1}}{PAYLOAD}',
    f'{{"id":1,"other":"{PAYLOAD}"}}',
    f'{{"name":"{PAYLOAD}"}}',
    f'{{"id":99999999999999999999,"name":"{PAYLOAD}"}}',
    b"\xff" + PAYLOAD.encode(),
    f'{{"id":1,"name":"{PAYLOAD}","name":""}}',
]


def _troubled(sink: ScriptedSink) -> None:
    """Let a sink fail in each way before it takes anything."""
    failures: list[BatcherError] = [
        SinkUnavailable("away"),
        SinkMisconfigured("refused"),
        RowsRejected([Rejection(0, "type", "does not fit", "name")]),
        BlockRejected("some row"),
    ]

    def fail(_block: Block) -> None:
        if failures:
            raise failures.pop(0)

    sink.before = fail


@pytest.mark.parametrize("shown", ["json", "console"])
@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("queue", ["memory", "none", "failing"])
def test_no_part_of_a_record_is_ever_logged(
    shown: logs.Format,
    level: str,
    queue: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sink = ScriptedSink(SCHEMA)
    _troubled(sink)
    letters = MemoryDeadLetterQueue()
    letters.failures = 3 if queue == "failing" else 0
    plant = Plant(sink, queue=None if queue == "none" else letters)
    good: list[bytes | str | None] = [f'{{"id":{i},"name":"{PAYLOAD}"}}' for i in range(30)]
    values = [*good, *BAD]
    keys: list[bytes | None] = [PAYLOAD.encode()] * len(values)
    headers: list[Headers | None] = [((PAYLOAD, PAYLOAD.encode()),)] * len(values)
    plant.produce(EVENTS, values, keys, headers)
    code = plant.run(monkeypatch, shown, level)
    captured = capfd.readouterr()
    assert (code == 0) is (queue != "none"), captured.err
    assert captured.err
    assert PAYLOAD not in captured.out + captured.err
    assert PAYLOAD not in plant.answers()
    if queue == "memory":
        assert len(sink.rows()) + len(letters.letters) == len(values)
        assert PAYLOAD in repr(letters.letters)


FORGED = '\r\n{"event": "forged", "level": "info"}\r\nbatcher: forged\x1b[2K\x1b]0;forged\x07\u2028\u202e\x9b2J'


@pytest.mark.parametrize("shown", ["json", "console"])
@pytest.mark.parametrize("queued", [True, False])
def test_hostile_topics_keys_headers_and_fields_forge_no_line_and_survive_into_letters(
    shown: logs.Format,
    queued: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    partition = Partition(f"t{FORGED}", 0)
    queue = DirectoryDeadLetterQueue(str(tmp_path / "letters")) if queued else None
    sink = ScriptedSink(SCHEMA)
    failures = [
        SinkUnavailable(f"the driver says{FORGED}"),
        RowsRejected([Rejection(0, "type", f"says{FORGED}", FORGED)]),
    ]

    def fail(_block: Block) -> None:
        if failures:
            raise failures.pop(0)

    sink.before = fail
    plant = Plant(sink, partition, queue)
    values: list[bytes | str | None] = [
        '{"id":1}',
        *['{"id":2}'] * 9,
        json.dumps({"id": 3, FORGED: 1}),
        FORGED,
        b"\xff\0",
    ]
    keys: list[bytes | None] = [FORGED.encode(), *[b"\0\xff\xfe\r\n"] * (len(values) - 1)]
    named: Headers = ((FORGED, b"\0\xff"), ("", None), (FORGED, FORGED.encode()), ("n\0ul", b""))
    headers: list[Headers | None] = [named] * len(values)
    plant.produce(partition, values, keys, headers)
    code = plant.run(monkeypatch, shown)
    said = capfd.readouterr().err
    assert code == (0 if queued else 78), said
    assert not set(said) & set("\r\x1b\x07\x9b\u2028\u202e")
    for line in said.splitlines():
        if shown == "json":
            assert json.loads(line)["event"] != "forged"
        assert not line.lstrip().startswith(('{"event": "forged"', "batcher: forged"))
    if not queued:
        return
    letters = [from_fields(fields) for fields in read_letters(tmp_path / "letters")]
    assert sorted(letter.record.offset for letter in letters) == [0, 10, 11, 12]
    for letter in letters:
        record = letter.record
        assert record.partition == partition
        assert record.key == keys[record.offset]
        value = values[record.offset]
        assert record.value == (value.encode() if isinstance(value, str) else value)
        assert record.headers == named
        assert letter.message.isprintable()
        assert letter.path is None or letter.path.isprintable()


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    if (reason := embedded_engine_missing()) is not None:
        pytest.skip(reason)
    with ClickHouseServer(tmp_path_factory.mktemp("guarded"), users={"loader": AWKWARD}) as server:
        server.query("CREATE DATABASE IF NOT EXISTS shop")
        yield server


def test_the_password_of_a_running_pipeline_is_nowhere_to_be_seen(
    guarded_server: ClickHouseServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = guarded_server
    server.query("CREATE TABLE shop.t (id Int64, name String) ENGINE = MergeTree ORDER BY id")
    server.inject("exception", code=241)
    server.inject("status", code=503)
    sink = sinks.load("clickhouse")({"dsn": f"{server.dsn}/shop", "table": "t"})
    plant = Plant(sink, queue=MemoryDeadLetterQueue())
    plant.produce(EVENTS, [f'{{"id":{i},"name":"{PAYLOAD}"}}' for i in range(20)])
    plant.pipeline._source._until_eof = False  # type: ignore[attr-defined]
    codes: list[int] = []
    monkeypatch.setattr(wiring, "pipeline_of", lambda *_: plant.pipeline)
    monkeypatch.setattr(command, "tune_collector", lambda: None)
    logs.setup("json", "debug")
    # Nothing of it is hidden: it must not be there in the first place.
    assert not any(CANARY in secret for secret in logs._secrets)
    thread = threading.Thread(target=lambda: codes.append(command.run(Settings(), for_people=False)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batcher.cli.verbs.run.heard_by", lambda _listen: _nothing())
        thread.start()
        while plant.pipeline.summary().written < 20 and thread.is_alive():
            threading.Event().wait(0.01)
        said = plant.answers()
        plant.pipeline.stop()
        thread.join(30)
    assert codes == [0]
    assert '"running"' in said
    assert CANARY not in said
    assert PAYLOAD not in said
    err = capfd.readouterr().err
    assert "sink_unavailable" in err
    assert CANARY not in err
    assert PAYLOAD not in err


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_a_password_that_the_server_refuses_is_in_no_part_of_the_error(guarded_server: ClickHouseServer) -> None:
    wrong = f"{CANARY}-wrong"
    sink = sinks.load("clickhouse")(
        {"dsn": f"http://127.0.0.1:{guarded_server.port}/shop", "table": "t", "user": "loader", "password": wrong}
    )
    with pytest.raises(SinkMisconfigured) as caught:
        sink.open()
    shown = io.StringIO()
    traceback.print_exception(caught.value, file=shown)
    assert wrong not in shown.getvalue()
    assert CANARY not in repr(sink)


@pytest.mark.parametrize(
    "name",
    [
        "x`; DROP TABLE victim; --",
        "x\\`; DROP TABLE victim; --",
        'x"; DROP TABLE victim; --',
        "x'; DROP TABLE victim; --",
        "x) VALUES (1); DROP TABLE victim; /*",
        "{victim:Identifier}",
        "%(victim)s",
        "victim -- ",
    ],
)
def test_names_of_tables_columns_and_topics_are_never_statements(name: str, chdb_engine: EmbeddedEngine) -> None:
    from sinks.clickhouse.schema import quoted

    database = f"names_{os.urandom(4).hex()}"
    chdb_engine.execute(f"CREATE DATABASE {database}")
    chdb_engine.execute(f"CREATE TABLE {database}.victim (id Int64) ENGINE = MergeTree ORDER BY id")
    chdb_engine.execute(f"INSERT INTO {database}.victim VALUES (42)")
    before = chdb_engine.rows(f"SELECT name FROM system.tables WHERE database = '{database}' ORDER BY name")
    column = f"c {name}"
    chdb_engine.execute(
        f"CREATE TABLE {database}.{quoted(name)} ({quoted(column)} Int64, "
        "_topic String, _partition Int32, _offset Int64) ENGINE = MergeTree ORDER BY tuple()"
    )
    partition = Partition(name, 0)
    sink = sinks.load("clickhouse")({"dsn": f"{chdb_engine.dsn}?database={database}", "table": name})
    try:
        info = sink.open()
        assert info.schema is not None
        assert info.schema.names == [column]
        table = pa.table({column: pa.array([1, 2], pa.int64())})
        block = make_block(table, partition=partition, coordinates=("_topic", "_partition", "_offset"))
        sink.write(block)
        assert sink.present(partition, 0, 9).to_pylist() == [0, 1]  # type: ignore[attr-defined]
        assert sink.max_offset_above({partition: 1}) == {partition: 1}  # type: ignore[attr-defined]
        assert sink.running(f"{name}") is False  # type: ignore[attr-defined]
    finally:
        sink.close()
    assert chdb_engine.rows(f"SELECT id FROM {database}.victim") in ([(42,)], [("42",)])
    after = chdb_engine.rows(f"SELECT name FROM system.tables WHERE database = '{database}' ORDER BY name")
    assert sorted(after) == sorted([*before, (name,)])
    chdb_engine.execute(f"DROP DATABASE {database} SYNC")
