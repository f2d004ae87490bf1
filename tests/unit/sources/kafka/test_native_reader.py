"""Where the native extension cannot fetch, Python does, one line says why, and `require` refuses."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from batcher import native
from batcher.errors import ExtensionMissing, SettingRefused
from batcher.native import Choice
from batcher.records import Partition
from batcher.sources.kafka.cluster import connect
from batcher.sources.kafka.native_reader import NativeReader, ReaderMaker, misfit
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.records_reader import MessageReader, PartitionEvent
from tests.harness.fetch_paths import NEEDS_EXTENSION


def extension(version: int | None = None, file: str = "/lib/batcher_native.so", **more: Any) -> Any:
    """Be an extension that finds a librdkafka of this version."""
    found = confluent_kafka.libversion()[1] if version is None else version
    return SimpleNamespace(__file__=file, librdkafka=lambda _: found, **{"Fetcher": object, **more})


UNFIT = {
    "does not show the functions": extension(0),
    "another librdkafka is in the way": extension(0x010000FF),
    "a semicolon in its path": extension(file="/a;b/batcher_native.so"),
    "fetches nothing on this system": SimpleNamespace(__file__="x", librdkafka=lambda _: 0),
}


def properties() -> dict[str, Any]:
    return {**KafkaOptions("nowhere.invalid:9092", ("t",), "g").librdkafka(), "log_level": 0}


def lines(capsys: pytest.CaptureFixture[str]) -> Sequence[str]:
    return [line for line in capsys.readouterr().out.splitlines() if "native_fetch_not_used" in line]


def use(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    monkeypatch.setattr(native, "extension", lambda choice: None if choice == "off" else found)
    monkeypatch.setattr(native, "_jobs", set())


@pytest.mark.parametrize("reason", UNFIT)
def test_an_extension_that_does_not_fit_is_one_line_and_python_fetches(
    reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, UNFIT[reason])
    assert reason in misfit(UNFIT[reason])

    maker = ReaderMaker("auto")
    for _ in range(2):
        consumer, reader = maker.connect(properties(), None)
        consumer.close()
        assert isinstance(reader, MessageReader)

    assert len(lines(capsys)) == 1
    assert native.jobs() == ()
    with pytest.raises(ExtensionMissing, match=f"--native require: .*{reason}"):
        ReaderMaker("require")


def test_a_librdkafka_that_takes_no_plug_in_is_one_line_and_python_fetches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # There is no library at this path, so it is refused as one that was built without plug-ins refuses all.
    use(monkeypatch, extension(file="/nowhere/batcher_native.so"))

    consumer, reader = ReaderMaker("auto").connect(properties(), None)
    consumer.close()

    assert isinstance(reader, MessageReader)
    [line] = lines(capsys)
    assert "librdkafka takes no plug-in here" in line
    assert native.jobs() == ()
    with pytest.raises(ExtensionMissing, match="takes no plug-in here"):
        ReaderMaker("require").connect(properties(), None)


@pytest.mark.parametrize("choice", ["auto", "decode", "off", "require"])
@NEEDS_EXTENSION
def test_a_property_that_is_refused_is_named_whatever_fetches(choice: Choice) -> None:
    with pytest.raises(SettingRefused, match=r"-X fetch\.wait\.max\.ms") as refusal:
        ReaderMaker(choice).connect({**properties(), "fetch.wait.max.ms": "soon"}, None)
    assert "plugin" not in str(refusal.value)


@pytest.mark.parametrize(
    ("choice", "kind"), [("auto", NativeReader), ("decode", MessageReader), ("off", MessageReader)]
)
@NEEDS_EXTENSION
def test_the_choice_says_what_fetches_and_so_does_the_process(
    choice: Choice, kind: type[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_jobs", set())

    consumer, reader = ReaderMaker(choice).connect(properties(), None)
    reader.close()
    consumer.close()

    assert type(reader) is kind
    assert native.jobs() == (("fetch",) if kind is NativeReader else ())


@NEEDS_EXTENSION
def test_a_reader_that_was_closed_or_whose_consumer_was_raises_and_touches_nothing() -> None:
    consumer, reader = ReaderMaker("require").connect(properties(), None)
    reader.close()
    with pytest.raises(RuntimeError, match="the consumer is closed"):
        reader.read(1, 1, 0.0)
    consumer.close()
    consumer, reader = ReaderMaker("require").connect(properties(), None)
    fetcher = cast("NativeReader", reader)._fetcher
    consumer.close()
    with pytest.raises(RuntimeError, match="the consumer is closed"):
        fetcher.fetch(1, 1, 0, 0)
    reader.close()


@NEEDS_EXTENSION
def test_the_extension_finds_no_consumer_that_was_made_without_it() -> None:
    module = native.extension("require")
    assert module is not None
    consumer = connect(properties())
    with pytest.raises(RuntimeError, match="no consumer with this plug-in"):
        module.Fetcher()
    consumer.close()


def test_what_the_client_says_of_a_partition_and_of_itself_is_told_as_python_tells_it() -> None:
    found = [(-191, "end", "t", 3, 9), (-150, "fatal", "", -1, -1001)]
    fetcher = SimpleNamespace(fetch=lambda *_: ([], found))
    reader = NativeReader(cast("Any", SimpleNamespace(consume=lambda *_: [])), fetcher, None)

    _, events = reader.read(1, 1, 0.0)

    assert [(event.partition, event.offset) for event in events] == [(Partition("t", 3), 9), (Partition("", 0), None)]
    assert isinstance(events[0], PartitionEvent)
    assert [(event.error.code(), event.error.str()) for event in events] == [
        (KafkaError._PARTITION_EOF, "end"),
        (KafkaError._FATAL, "fatal"),
    ]
