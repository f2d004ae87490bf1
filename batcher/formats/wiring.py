"""Make formats with a schema of the writer, and formats of packed messages, from the settings."""

from __future__ import annotations

from batcher.errors import ConfigurationError
from batcher.formats.framing import Framing, FramingKind
from batcher.formats.json import options_of
from batcher.formats.packed import PackedFormat
from batcher.formats.registry_options import Registry
from batcher.formats.schema_registry import RegistrySchemas
from batcher.formats.writer_schema import WriterSchemas
from batcher.formats.written import Codec, WrittenFormat
from batcher.plugins import PluginContext
from batcher.protocols import Format
from batcher.settings.model import Decode


def unpacked(format_: Format, decode: Decode) -> Format:
    """Return the format that reads what is in packed messages; the same one where they are not packed."""
    if isinstance(format_, WrittenFormat):
        if decode.compression != "none":
            raise ConfigurationError("--decode.compression: records with a schema id are not compressed by hand")
        return format_
    if decode.writer_schema is not None:
        raise ConfigurationError(f"--decode.writer-schema: --decode.format {decode.format} reads no schema of a writer")
    if decode.message:
        raise ConfigurationError(f"--decode.message: --decode.format {decode.format} has no messages to choose from")
    kind: FramingKind = "confluent" if decode.framing == "confluent" else "none"
    if kind == "none" and decode.compression == "none":
        return format_
    framing = Framing(kind, tombstones=decode.tombstones, max_message_bytes=int(decode.max_message_bytes))
    return PackedFormat(format_, framing, decode.compression)


def written_format(codec: Codec, registry: Registry, context: PluginContext) -> WrittenFormat:
    """Return the format of a codec. Raise ConfigurationError where nothing says where its schemas are."""
    decode = context.section(Decode)
    flag = f"--decode.format {codec.kind}"
    schemas: WriterSchemas
    usual: FramingKind
    if decode.writer_schema is not None:
        if registry.urls():
            raise ConfigurationError(f"{flag}: schemas come from --registry.url or --decode.writer-schema; which one?")
        framed = decode.framing == "confluent"
        schemas, usual = codec.file(decode.writer_schema, decode.message, framed=framed), "none"
    elif registry.urls():
        if decode.message:
            raise ConfigurationError(f"{flag}: --decode.message belongs to --decode.writer-schema; here frames name it")
        schemas, usual = RegistrySchemas(registry), "confluent"
    else:
        raise ConfigurationError(f"{flag}: where are the schemas? --registry.url URL, or --decode.writer-schema FILE")
    kind = usual if decode.framing == "auto" else decode.framing
    if kind == "none" and registry.urls():
        raise ConfigurationError(f"{flag}: with --decode.framing none nothing says which schema of the registry it is")
    options = options_of(decode)
    framing = Framing(kind, codec.kind == "protobuf", options.tombstones, options.max_message_bytes)
    return WrittenFormat(codec, framing, schemas, options)
