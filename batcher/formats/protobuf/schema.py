"""Descriptors of a Protobuf schema, as a registry or a file has it.

A registry holds the text of a `.proto` file, or a serialized FileDescriptorProto in Base64, which is what Confluent's
serializer for Python registers. What a schema imports comes from its references, and the types that everybody has
(`google/protobuf`, `confluent`, and `google/type` where googleapis-common-protos is installed) from this machine.
"""

from __future__ import annotations

import ast
import base64
import binascii
import importlib
import re
import tempfile
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from batcher.formats.protobuf.confluent import CONFLUENT
from batcher.formats.writer_schema import WriterSchema
from batcher.formats.written import SchemaBroken

MAIN: Final = "the-schema.proto"
"""The name of the schema itself while it is compiled: no reference has it."""

MAX_FILES: Final = 1000
"""The most files that a schema may consist of, however deep its imports."""

_KNOWN: Final = ("google/protobuf/", "google/type/", "google/api/", "google/rpc/")
"""What may be imported from this machine; of `google/protobuf` protoc has the texts, of the others a package."""

_COMMENTS: Final = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_SYNTAX: Final = re.compile(r"(?:^|;)\s*(?:syntax|edition)\s*=")
_compiling: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class ProtoSchema:
    """Hold the files of a schema, each after those that it imports; the last is the schema itself."""

    files: tuple[FileDescriptorProto, ...]
    pool: DescriptorPool

    def message(self, indexes: Sequence[int], name: str) -> Descriptor:
        """Return the message type of records: the one of that full name, or else the one the indexes lead to.

        Without either it is the only one of the file. Raise SchemaBroken where there is none.
        """
        main = self.files[-1]
        if not name:
            name = _named_by(main, indexes) if indexes else _only(main)
        try:
            return self.pool.FindMessageTypeByName(name.removeprefix("."))
        except KeyError:
            pass
        package = main.package
        try:
            return self.pool.FindMessageTypeByName(f"{package}.{name}" if package else name)
        except KeyError:
            raise SchemaBroken(f"it has no message {_shown(name)}; it has {_listed(main)}") from None


def load(written: WriterSchema) -> ProtoSchema:
    """Return the descriptors of a schema; raise SchemaBroken where there is something wrong with it."""
    return _load(written.text, tuple(written.references.items()))


@lru_cache(maxsize=64)
def _load(text: str, references: tuple[tuple[str, str], ...]) -> ProtoSchema:
    # The same schema is wanted for proposing columns, by the decode loop and by the write loop; compiling takes 5 ms.
    referred = dict(references)
    own = _serialized(text)
    files = _compiled(text, referred) if own is None else _gathered(own, referred)
    return pooled(files)


def pooled(files: Iterable[FileDescriptorProto]) -> ProtoSchema:
    """Return files as a schema; raise SchemaBroken where they contradict each other."""
    files = tuple(files)
    pool = DescriptorPool()
    for file in files:
        try:
            pool.AddSerializedFile(file.SerializeToString())
        except (TypeError, ValueError) as error:
            raise SchemaBroken(f"{_shown(file.name)}: {_first_line(error)}") from error
    return ProtoSchema(files, pool)


def compiled_beside(text: str, beside: Path) -> tuple[FileDescriptorProto, ...]:
    """Return the files of a `.proto` text whose imports are in a directory; raise SchemaBroken."""
    with tempfile.TemporaryDirectory(prefix="batcher-proto-") as made:
        return _compile(text, Path(made), [beside])


def gathered(main: FileDescriptorProto, others: Mapping[str, FileDescriptorProto]) -> tuple[FileDescriptorProto, ...]:
    """Return a file after all that it imports, from others or from this machine; raise SchemaBroken."""
    found: dict[str, FileDescriptorProto] = {}
    _gather(main, others, found, ())
    return tuple(found.values())


def _serialized(text: str) -> FileDescriptorProto | None:
    """Return the file of a Base64 text; None where it is the text of a `.proto` file."""
    try:
        octets = base64.b64decode(text.strip(), validate=True)
        file = FileDescriptorProto.FromString(octets)
    except (binascii.Error, ValueError, DecodeError):
        return None
    return file if file.name else None


def _gathered(own: FileDescriptorProto, references: Mapping[str, str]) -> tuple[FileDescriptorProto, ...]:
    """Return the files that a serialized one needs, where references may be of both kinds."""
    others: dict[str, FileDescriptorProto] = {}
    for name, text in references.items():
        file = _serialized(text)
        if file is None:
            file = _compiled(text, {one: other for one, other in references.items() if one != name})[-1]
        file.name = name
        others[name] = file
    return gathered(own, others)


def _gather(
    file: FileDescriptorProto,
    others: Mapping[str, FileDescriptorProto],
    found: dict[str, FileDescriptorProto],
    on_the_way: tuple[str, ...],
) -> None:
    for name in file.dependency:
        if name in found:
            continue
        if name in on_the_way or len(found) >= MAX_FILES:
            raise SchemaBroken(f"{_shown(name)}: imports itself, or more than {MAX_FILES} files are imported")
        imported = others.get(name) or _known(name)
        if imported is None:
            raise SchemaBroken(f"it imports {_shown(name)}, and nothing of that name is among its references")
        _gather(imported, others, found, (*on_the_way, name))
    found[file.name] = file


def _known(name: str) -> FileDescriptorProto | None:
    """Return a file that everybody has, None where it is not one, or not on this machine."""
    if name in CONFLUENT:
        file = _compiled(CONFLUENT[name], {})[-1]
        file.name = name
        return file
    if not name.startswith(_KNOWN):
        return None
    try:
        module = importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
    except ImportError:
        return None
    return FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)


def _compiled(text: str, references: Mapping[str, str]) -> tuple[FileDescriptorProto, ...]:
    with tempfile.TemporaryDirectory(prefix="batcher-proto-") as made:
        root = Path(made)
        for name, other in references.items():
            serialized = _serialized(other)
            if serialized is not None:
                raise SchemaBroken(f"{_shown(name)}: is referred to as a descriptor by a schema that is a text")
            _put(root, name, other)
        return _compile(text, root, ())


def _put(root: Path, name: str, text: str) -> None:
    """Write a file under the name by which it is imported, and nowhere else."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts or name == MAIN:
        raise SchemaBroken(f"a reference has the name {_shown(name)}, which no import can have")
    try:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_with_syntax(text), encoding="utf-8")
    except OSError as error:
        raise SchemaBroken(f"a reference has the name {_shown(name)}, which no file can have") from error


def _with_syntax(text: str) -> str:
    """Say what a text without a `syntax` is, on its first line; protoc would say so on stderr."""
    return text if _SYNTAX.search(_COMMENTS.sub(" ", text)) else f'syntax = "proto2"; {text}'


def _compile(text: str, root: Path, beside: Sequence[Path]) -> tuple[FileDescriptorProto, ...]:
    """Return the files of a text, each after what it imports; the last is its own."""
    # Only now: these are big, and a schema that is a descriptor needs none of it.
    from grpc_tools import _protoc_compiler as protoc  # noqa: PLC0415 - as said above

    (root / MAIN).write_text(_with_syntax(text), encoding="utf-8")
    for name, known in CONFLUENT.items():
        if not (root / name).exists():
            _put(root, name, known)
    includes = [root, *beside, Path(str(resources.files("grpc_tools"))) / "_proto", *_packages("google.type")]
    try:
        # Warnings, of unused imports for example, are for the authors of the schema.
        with _compiling, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = protoc.get_protos(MAIN.encode(), [str(place).encode() for place in includes])
    except protoc.ProtocErrors as error:
        raise SchemaBroken(_first_error(error)) from error
    # The Python that protoc writes holds each file serialized. It is read, not run.
    return tuple(_descriptor_in(code) for _, code in made)


def _packages(name: str) -> list[Path]:
    """Return the roots under which a package brings along its `.proto` files; none where it is not installed."""
    try:
        package = importlib.import_module(name)
    except ImportError:
        return []
    return [Path(place).parents[name.count(".")] for place in package.__path__]


def _descriptor_in(code: bytes) -> FileDescriptorProto:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "AddSerializedFile":
            file: FileDescriptorProto = FileDescriptorProto.FromString(ast.literal_eval(node.args[0]))
            return file
    raise SchemaBroken("protoc returned no descriptor")


def _first_error(error: Any) -> str:
    """Return protoc's first line, with the place where it says one."""
    for one in error.errors():
        where = one.filename.decode(errors="replace")
        line = f"line {one.line + 1}: " if one.line >= 0 else ""
        place = "" if where == MAIN else f"{_shown(where)}: "
        return f"{place}{line}{_shown(one.message.decode(errors='replace'), 200)}"
    return "protoc does not compile it"


def _named_by(file: FileDescriptorProto, indexes: Sequence[int]) -> str:
    """Return the full name of the message that indexes lead to, outermost first."""
    parts = [file.package] if file.package else []
    messages = file.message_type
    for index in indexes:
        if index >= len(messages):
            path = ".".join(map(str, indexes))
            raise SchemaBroken(f"the frame names message {path} of it, and there is no such message")
        parts.append(messages[index].name)
        messages = messages[index].nested_type
    return ".".join(parts)


def _only(file: FileDescriptorProto) -> str:
    if len(file.message_type) != 1:
        raise SchemaBroken(f"which of its messages are the records? --decode.message NAME; it has {_listed(file)}")
    return _named_by(file, (0,))


def _listed(file: FileDescriptorProto) -> str:
    """Name some messages of a file."""
    names = [_shown(message.name) for message in file.message_type]
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") if names else "none"


def _first_line(error: Exception) -> str:
    return _shown(str(error).partition("\n")[0], 200)


def _shown(name: str, length: int = 80) -> str:
    """Make a name fit for a log line."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:length])
