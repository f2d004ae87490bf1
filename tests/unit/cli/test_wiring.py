import json
import socket
import threading
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

import sinks
from batcher.cli.support import wiring
from batcher.dead_letters.directory import DirectoryDeadLetterQueue
from batcher.dead_letters.kafka import KafkaDeadLetterQueue
from batcher.errors import ConfigurationError
from batcher.settings import Settings
from batcher.settings.model import Decode, Dlq, Http
from batcher.sources.kafka.settings import Kafka
from batcher.sources.starts import start_of
from batcher.telemetry.otel.variables import ExportRequest
from batcher.testing.sinks import ScriptedSink
from sinks.clickhouse import mapping as clickhouse_mapping
from sinks.clickhouse.settings import ClickHouse
from sinks.parquet import mapping as parquet_mapping
from sinks.parquet.settings import Parquet

KAFKA = Kafka(brokers="k:1", topics=("t",), group="g")


def test_clickhouse_gets_its_section_with_secrets_revealed_and_nothing_that_is_not_set() -> None:
    section = ClickHouse(table="t", password=SecretStr("hunter22"), settings={"max_memory_usage": "1"})

    context = wiring.context_of(Settings(sink="clickhouse", clickhouse=section), "clickhouse")
    assert clickhouse_mapping(section, context) == {
        "dsn": "http://localhost:8123/default",
        "table": "t",
        "password": "hunter22",
        "settings": {"max_memory_usage": "1"},
        "insert_timeout_s": 120.0,
        "allow_memory": False,
    }


def test_parquet_gets_its_section_and_the_schema_of_the_file(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64())])
    pq.write_table(schema.empty_table(), tmp_path / "s.parquet")
    settings = Settings(
        sink="parquet",
        parquet=Parquet(path="out", partition_by=("country",)),
        decode=Decode(schema=str(tmp_path / "s.parquet")),
    )

    assert parquet_mapping(settings.section(Parquet), wiring.context_of(settings, "parquet")) == {
        "path": "out",
        "compression": "zstd",
        "encodings": "v1",
        "partition_by": ("country",),
        "partition_zone": "UTC",
        "coordinates": "default",
        "layout": "auto",
        "max_directories": 1000,
        "topics": (),
        "option": {},
        "allow_insecure": False,
        "schema": schema,
    }


@pytest.mark.parametrize(
    ("given", "mode"), [("warn", "count"), ("halt", "count"), ("evolve", "evolve"), ("rescue", "rescue")]
)
def test_what_becomes_of_unknown_fields_is_what_the_settings_say(given: Any, mode: str) -> None:
    policy = wiring.evolution_of(Settings(decode=Decode(on_unknown=given, max_new_columns=7)))
    assert (policy.mode, policy.max_new_columns) == (mode, 7)


def test_a_schema_file_beside_a_table_that_has_its_own_schema_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--decode\.schema"):
        wiring.sink_of(Settings(sink="clickhouse", decode=Decode(schema="x.arrow")))


def test_another_sink_gets_the_options_given_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def plugin(options: object) -> ScriptedSink:
        given.append(options)
        return ScriptedSink()

    # Settings are composed once for all tests of a process: not while the registry tells a lie.
    settings = Settings(sink="my:Sink", options={"url": "x"})
    monkeypatch.setattr(sinks.registry, "load", lambda _name: plugin)
    wiring.sink_of(settings)
    assert given == [{"url": "x"}]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("1700000000000", 1_700_000_000_000),
        ("2023-11-14T22:13:20+00:00", 1_700_000_000_000),
    ],
)
def test_a_start_time_becomes_epoch_milliseconds(text: str, start: object) -> None:
    assert start_of(text) == start


def test_the_dead_letter_topic_is_kept_out_of_the_subscription() -> None:
    by_expression = Settings(kafka=Kafka(brokers="k:1", topics=("^t.*",), group="g"), dlq=Dlq(topic="t.dlq"))
    by_name = Settings(kafka=Kafka(brokers="k:1", topics=("t", "t.dlq"), group="g"), dlq=Dlq(topic="t.dlq"))

    assert wiring.kafka_options_of(by_expression).excluded_topics == {"t.dlq"}
    with pytest.raises(ConfigurationError, match=r"--dlq\.topic"):
        wiring.kafka_options_of(by_name)


def test_dead_letters_go_where_the_settings_say() -> None:
    assert wiring.dead_letters_of(Settings(kafka=KAFKA)) is None
    assert isinstance(wiring.dead_letters_of(Settings(kafka=KAFKA, dlq=Dlq(topic="d"))), KafkaDeadLetterQueue)
    assert isinstance(wiring.dead_letters_of(Settings(kafka=KAFKA, dlq=Dlq(path="d"))), DirectoryDeadLetterQueue)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(sink="null", kafka=KAFKA),
        Settings(sink="null", kafka=KAFKA, until_eof=True, max_records=5),
        Settings(sink="parquet", kafka=KAFKA, parquet=Parquet(path="out"), dlq=Dlq(path="d")),
        Settings(sink="clickhouse", kafka=KAFKA, clickhouse=ClickHouse(table="t")),
    ],
    ids=["null", "bounded", "parquet", "clickhouse"],
)
def test_a_pipeline_is_made_without_opening_anything(settings: Settings, tmp_path: Path) -> None:
    wiring.pipeline_of(settings)


def test_an_unknown_format_or_sink_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--decode\.format"):
        wiring.format_of(Settings(decode=Decode(format="xml")))
    with pytest.raises(ConfigurationError, match="--sink"):
        wiring.sink_of(Settings(sink="clickhose"))


def get(addr: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{addr}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_and_health_are_served_where_the_settings_say_and_only_while_it_runs() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        addr = f"127.0.0.1:{free.getsockname()[1]}"
    settings = Settings(sink="null", kafka=KAFKA, http=Http(addr=addr))
    metrics = wiring.metrics_of(settings)
    pipeline = wiring.pipeline_of(settings, metrics)

    with wiring.answering(settings, metrics, pipeline):
        assert "batcher_build_info" in get(addr, "/metrics")[1]
        assert json.loads(get(addr, "/status")[1])["group"] == "g"
        assert get(addr, "/livez")[0] == 200
        assert get(addr, "/readyz")[0] == 503

    with pytest.raises(OSError, match="refused"):
        get(addr, "/livez")


def test_without_an_address_nothing_is_counted_or_served() -> None:
    settings = Settings(sink="null", kafka=KAFKA)

    assert wiring.metrics_of(settings) is None
    with wiring.answering(settings, None, wiring.pipeline_of(settings)):
        assert not any(thread.name == "http" for thread in threading.enumerate())


def test_a_sink_that_cannot_be_made_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_options: object) -> object:
        raise TypeError("takes no mapping")

    settings = Settings(sink="mine:Broken")
    monkeypatch.setattr("sinks.registry.load", lambda _name: broken)
    with pytest.raises(ConfigurationError, match="--sink mine:Broken: cannot be made: TypeError: takes no mapping"):
        wiring.sink_of(settings)


def test_what_is_made_for_a_sink_and_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(sink="mine:Nothing")
    monkeypatch.setattr("sinks.registry.load", lambda _name: lambda _options: object())
    with pytest.raises(ConfigurationError, match=r"--sink mine:Nothing: what it makes has no open\(\)"):
        wiring.sink_of(settings)


def test_metrics_are_counted_where_a_page_or_an_export_asks_for_them() -> None:
    settings = Settings(sink="null", kafka=KAFKA)
    assert wiring.metrics_of(settings) is None
    assert wiring.metrics_of(settings, ExportRequest(traces=("otlp",))) is None
    assert wiring.metrics_of(settings, ExportRequest(metrics=("otlp",))) is not None
    assert wiring.metrics_of(settings.model_copy(update={"http": Http(addr="127.0.0.1:0")})) is not None


def test_the_last_export_is_a_part_of_the_time_of_a_stop() -> None:
    settings = Settings(sink="null", kafka=KAFKA, stop_timeout=timedelta(seconds=10))
    assert wiring.exporter_of(settings, ExportRequest(), None) is None
    exporter = wiring.exporter_of(settings, ExportRequest(traces=("otlp",)), None)
    assert exporter is not None
    without, with_it = (wiring.pipeline_of(settings, exporter=one) for one in (None, exporter))
    assert without._options.stop_timeout_s == 10
    assert with_it._options.stop_timeout_s + exporter.flush_s == 10
