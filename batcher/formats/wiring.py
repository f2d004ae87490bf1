"""Make formats with a schema of the writer, formats of packed messages, and formats for keys, from the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from batcher.errors import ConfigurationError
from batcher.formats.framing import HEADER, KEY_HEADER, Framing, FramingKind
from batcher.formats.json import options_of
from batcher.formats.json.format import JsonFormat
from batcher.formats.json.scalars import ScalarFormat
from batcher.formats.keyed import DOTTED, KEY, KeyedFormat, key_flags
from batcher.formats.packed import PackedFormat
from batcher.formats.raw.format import RawFormat, RawOptions
from batcher.formats.registry_options import SchemaRegistryOptions
from batcher.formats.schema_registry import FileSchemas, RegistrySchemas
from batcher.formats.whole import FIELD
from batcher.formats.writer_schema import WriterSchema, WriterSchemas
from batcher.formats.written import Codec, SchemaBroken, WrittenFormat
from batcher.plugins import PluginContext
from batcher.protocols import Format
from batcher.settings.model import Decode


def keyed(values: Format, decode: Decode, make: Callable[[Decode], Format]) -> Format:
    """Return the format that reads keys too. `make` makes the format of a section; raise ConfigurationError."""
    section, name = of_keys(decode), decode.key_format
    try:
        keys = unpacked(_text(section), section, keys=True) if name == "text" else make(section)
    except ConfigurationError as error:
        raise ConfigurationError(key_flags(str(error))) from error
    if isinstance(keys, JsonFormat):
        keys = ScalarFormat(keys)
    return KeyedFormat(values, keys, name, whole=name == "text")


def of_values(decode: Decode) -> Decode:
    """Return the section without what it says about columns of the key."""
    text = tuple(name for name in decode.text if not _of_key(name))
    epoch = tuple(word for word in decode.epoch if not _of_key(word.rpartition("=")[0]))
    return decode.model_copy(update={"text": text, "epoch": epoch})


def of_keys(decode: Decode) -> Decode:
    """Return the section for the format of keys, with what is said about their columns and about all columns.

    Raise ConfigurationError for a format that makes no sense for keys.
    """
    if decode.key_format == "raw":
        raise ConfigurationError("--decode.key-format raw: keys as they are: bytes, or text")
    text = (_inner(name) if _of_key(name) else name for name in decode.text if _of_key(name) or name in _ALL)
    words = (word.rpartition("=") for word in decode.epoch)
    epoch = (f"{_inner(name)}={unit}" if name else unit for name, _, unit in words if not name or _of_key(name))
    return decode.model_copy(
        update={
            "format": decode.key_format,
            "framing": decode.key_framing,
            "writer_schema": decode.key_writer_schema,
            "message": "",
            "validation": "off",
            "compression": "none",
            "text": tuple(text),
            "epoch": tuple(epoch),
            "tombstones": "skip",
        }
    )


_ALL: Final = frozenset({"strict", "any"})


def _of_key(name: str) -> bool:
    return name == KEY or name.startswith(DOTTED)


def _inner(name: str) -> str:
    return FIELD if name == KEY else name.removeprefix(DOTTED)


def _text(decode: Decode) -> Format:
    advice = "--decode.key-format bytes takes any"
    return RawFormat(RawOptions(FIELD, "text", int(decode.max_message_bytes), "skip", decode.on_unknown, advice))


def unpacked(
    format_: Format, decode: Decode, registry: SchemaRegistryOptions | None = None, *, keys: bool = False
) -> Format:
    """Return the format that reads what is in packed messages, or `keys`; the same one where they are not packed."""
    if decode.validation == "on" and decode.format != "json":
        raise ConfigurationError(f"--decode.validate: checks JSON records; --decode.format is {decode.format}")
    if isinstance(format_, WrittenFormat):
        if decode.compression != "none":
            raise ConfigurationError("--decode.compression: records with a schema id are not compressed by hand")
        return format_
    if decode.message:
        raise ConfigurationError(f"--decode.message: --decode.format {decode.format} has no messages to choose from")
    if decode.validation == "on":
        return _checked(format_, decode, registry or SchemaRegistryOptions())
    if decode.writer_schema is not None:
        advice = "; --decode.validate on checks records with it" if decode.format == "json" else ""
        raise ConfigurationError(
            f"--decode.writer-schema: --decode.format {decode.format} reads no schema of a writer{advice}"
        )
    kind: FramingKind = "confluent" if decode.framing == "confluent" else "none"
    if kind == "none" and decode.compression == "none":
        return format_
    header = KEY_HEADER if keys else HEADER
    framing = Framing(kind, False, decode.tombstones, int(decode.max_message_bytes), header)
    return PackedFormat(format_, framing, decode.compression)


def _checked(format_: Format, decode: Decode, registry: SchemaRegistryOptions) -> Format:
    """Return a format of JSON that sees only records which keep their schema. Raise ConfigurationError."""
    from batcher.formats.json_schema import SchemaCheck, validator_of  # noqa: PLC0415 - few pipelines check

    schemas, usual = _schemas(decode, registry, "--decode.validate on", lambda file: _json_file(file, validator_of))
    kind = usual if decode.framing == "auto" else decode.framing
    framing = Framing(kind, tombstones=decode.tombstones, max_message_bytes=int(decode.max_message_bytes))
    return PackedFormat(format_, framing, decode.compression, SchemaCheck(schemas))


def _json_file(file: str, validator_of: Callable[[WriterSchema], object]) -> WriterSchemas:
    schemas = FileSchemas(file, "json")
    try:
        validator_of(schemas.get(None))
    except SchemaBroken as error:
        raise ConfigurationError(f"--decode.writer-schema {file}: {error}") from error
    return schemas


def _schemas(
    decode: Decode, registry: SchemaRegistryOptions, flag: str, of_file: Callable[[str], WriterSchemas]
) -> tuple[WriterSchemas, FramingKind]:
    """Return where schemas come from, and how records are framed there. Raise ConfigurationError."""
    if decode.writer_schema is not None:
        if registry.urls():
            raise ConfigurationError(f"{flag}: schemas come from --registry.url or --decode.writer-schema; which one?")
        return of_file(decode.writer_schema), "none"
    if not registry.urls():
        raise ConfigurationError(f"{flag}: where are the schemas? --registry.url URL, or --decode.writer-schema FILE")
    if decode.message:
        raise ConfigurationError(f"{flag}: --decode.message belongs to --decode.writer-schema; here frames name it")
    if decode.framing == "none":
        raise ConfigurationError(f"{flag}: with --decode.framing none nothing says which schema of the registry it is")
    return RegistrySchemas(registry), "confluent"


def written_format(codec: Codec, registry: SchemaRegistryOptions, context: PluginContext) -> WrittenFormat:
    """Return the format of a codec. Raise ConfigurationError where nothing says where its schemas are."""
    decode = context.section(Decode)
    flag = f"--decode.format {codec.kind}"
    framed = decode.framing == "confluent"
    schemas, usual = _schemas(decode, registry, flag, lambda file: codec.file(file, decode.message, framed=framed))
    kind = usual if decode.framing == "auto" else decode.framing
    options = options_of(decode)
    header = KEY_HEADER if context.keys else HEADER
    framing = Framing(kind, codec.kind == "protobuf", options.tombstones, options.max_message_bytes, header)
    return WrittenFormat(codec, framing, schemas, options)
