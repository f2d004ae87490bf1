"""One schema from a file, where there is no registry: a `.proto`, or what protoc makes of some."""

from __future__ import annotations

import base64
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from batcher.errors import ConfigurationError
from batcher.formats.protobuf.schema import compiled_beside, gathered, pooled
from batcher.formats.writer_schema import SchemaKey, WriterSchema
from batcher.formats.written import SchemaBroken


class ProtoFile:
    """Answer every question with the schema of one file (`writer_schema.WriterSchemas`).

    The imports of a `.proto` file are looked for beside it. Any other file is a FileDescriptorSet. Without a name of a
    message, frames say which one it is, or the file has only one. Raise ConfigurationError when the file cannot be
    read, or has no such message.
    """

    def __init__(self, path: Path | str, message: str, *, framed: bool) -> None:
        flag = f"--decode.writer-schema {path}"
        try:
            octets = Path(path).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{flag}: cannot be read: {error.strerror}") from error
        try:
            if Path(path).suffix == ".proto":
                files = compiled_beside(octets.decode(), Path(path).absolute().parent)
            else:
                files = _of_set(octets, message)
            if message or not framed:
                pooled(files).message((), message)
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{flag}: is not UTF-8, as a .proto file is") from error
        except SchemaBroken as error:
            raise ConfigurationError(f"{flag}: {error}") from error
        *imported, main = files
        references = {file.name: _text(file) for file in imported}
        self._schema = WriterSchema("protobuf", _text(main), references, message)

    def get(self, key: SchemaKey) -> WriterSchema:
        """Return the schema, whichever is asked for."""
        del key
        return self._schema


def _text(file: FileDescriptorProto) -> str:
    return base64.b64encode(file.SerializeToString()).decode()


def _of_set(octets: bytes, message: str) -> tuple[FileDescriptorProto, ...]:
    """Return the files of a FileDescriptorSet, last the one with the message, or else the last that protoc had."""
    try:
        files = list(FileDescriptorSet.FromString(octets).file)
    except DecodeError as error:
        raise SchemaBroken("is neither a .proto file nor a FileDescriptorSet, as protoc -o writes it") from error
    if not files:
        raise SchemaBroken("has no schema in it")
    named = {file.name: file for file in files}
    mains = [file for file in files if message and _has(file, message)]
    return gathered(mains[0] if mains else files[-1], named)


def _has(file: FileDescriptorProto, message: str) -> bool:
    outermost = message.removeprefix(".").removeprefix(f"{file.package}.").partition(".")[0]
    return any(one.name == outermost for one in file.message_type)
