"""Formats made from the settings: what contradicts itself is refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.errors import ConfigurationError
from batcher.formats.avro import plugin as avro
from batcher.formats.framing import Framing
from batcher.formats.json.format import JsonFormat
from batcher.formats.packed import PackedFormat
from batcher.formats.registry_options import SchemaRegistryOptions
from batcher.formats.wiring import unpacked
from batcher.formats.written import WrittenFormat
from batcher.options import SecretStr
from batcher.plugins import PluginContext
from batcher.settings.model import Decode

SCHEMA = '{"type": "record", "name": "E", "fields": [{"name": "id", "type": "long"}]}'
NOWHERE = SchemaRegistryOptions()
REGISTRY = SchemaRegistryOptions(url=SecretStr("http://127.0.0.1:1"))


def made(registry: SchemaRegistryOptions = NOWHERE, **decode: Any) -> WrittenFormat:
    found = avro(registry, PluginContext(sections=(Decode(format="avro", **decode), registry)))
    assert isinstance(found, WrittenFormat)
    return found


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "e.avsc").write_text(SCHEMA)
    return str(tmp_path / "e.avsc")


def test_a_registry_means_frames_and_a_file_means_none(file: str) -> None:
    given = (made(REGISTRY), made(writer_schema=file), made(writer_schema=file, framing="confluent"))
    kinds = [one.framing.kind for one in given if isinstance(one.framing, Framing)]
    assert kinds == ["confluent", "none", "confluent"]


def test_a_message_is_named_only_where_something_asks_for_it(file: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--decode\.message: an Avro schema has no messages"):
        made(writer_schema=file, message="E")
    with pytest.raises(ConfigurationError, match=r"--decode\.message belongs to --decode\.writer-schema"):
        made(REGISTRY, message="E")
    with pytest.raises(ConfigurationError, match=r"--decode\.format json has no messages"):
        unpacked(JsonFormat(), Decode(message="E"))


def test_schemas_have_to_come_from_one_place(file: str) -> None:
    with pytest.raises(ConfigurationError, match=r"where are the schemas\? --registry\.url URL, or --decode"):
        made()
    with pytest.raises(ConfigurationError, match="which one"):
        made(REGISTRY, writer_schema=file)
    with pytest.raises(ConfigurationError, match="nothing says which schema of the registry it is"):
        made(REGISTRY, framing="none")


def test_formats_without_a_schema_are_unpacked_only_where_something_is_packed() -> None:
    plain = JsonFormat()

    assert unpacked(plain, Decode()) is plain
    assert isinstance(unpacked(plain, Decode(framing="confluent")), PackedFormat)
    assert isinstance(unpacked(plain, Decode(compression="gzip")), PackedFormat)


def test_options_that_nothing_reads_are_refused(file: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--decode\.format json reads no schema of a writer"):
        unpacked(JsonFormat(), Decode(writer_schema=file))
    with pytest.raises(ConfigurationError, match=r"--decode\.compression: records with a schema"):
        unpacked(made(writer_schema=file), Decode(compression="gzip"))
