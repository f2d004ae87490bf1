"""The name and the bytes of one Parquet file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from batcher import __version__
from batcher.records import Block, Partition, Range
from sinks.parquet.encodings import DICTIONARY_BYTES, Encodings, encodings_of

# Readers work on whole row groups in parallel and skip them by their statistics: DuckDB's own groups have
# 122,880 rows. A default batch of 100,000 rows is one group.
ROW_GROUP_ROWS: Final = 131_072

SUFFIX: Final = ".parquet"

FILE_NAME: Final = re.compile(r"(?P<topic>.+)\+(?P<partition>\d{5,})\+(?P<first>\d{20})-(?P<last>\d{20})\.parquet")

HIDDEN: Final = ("_", ".")
"""How the names of directories begin that readers of datasets ignore."""

PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")

CAPITALS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def encoded(text: str, *, fold: bool = False) -> str:
    """Return a text as part of a path: everything outside `[A-Za-z0-9_.-]` percent-encoded in UTF-8.

    Different texts stay different. Names of the directory itself or of its parent are encoded too. With `fold` capitals
    are encoded as well, for file systems that do not tell `A` from `a`. Readers decode all of it.
    """
    if text in (".", ".."):
        return text.replace(".", "%2E")
    keep = PLAIN - CAPITALS if fold else PLAIN
    return "".join(chr(byte) if byte in keep else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def topic_name(topic: str, *, fold: bool = False) -> str:
    """Return the name of a topic as part of a path: different topics have different ones, none of them hidden."""
    name = encoded(topic, fold=fold)
    # Kafka allows such topics.
    return f"%{ord(name[0]):02X}{name[1:]}" if name.startswith(HIDDEN) else name


def file_name(written: Range, *, fold: bool = False) -> str:
    """Return the name of the file that holds a range of offsets."""
    topic = topic_name(written.partition.topic, fold=fold)
    return f"{topic}+{written.partition.number:05d}+{written.first:020d}-{written.last:020d}{SUFFIX}"


def begins(partition: Partition, first: int) -> str:
    """Return how the names of a partition's files begin whose range begins at an offset, where capitals stay."""
    return f"{topic_name(partition.topic)}+{partition.number:05d}+{first:020d}"


def parsed_name(name: str) -> Range | None:
    """Return the range that a file name says, or None for a name that is not one of ours."""
    match = FILE_NAME.fullmatch(name)
    if match is None:
        return None
    partition = Partition(unquote(match["topic"]), int(match["partition"]))
    return Range(partition, int(match["first"]), int(match["last"]))


def block_metadata(block: Block) -> dict[bytes, bytes]:
    """Return what each file of a block says about itself in its footer."""
    (written,) = block.ranges
    return {
        b"batcher.topic": written.partition.topic.encode(),
        b"batcher.partition": str(written.partition.number).encode(),
        b"batcher.first": str(written.first).encode(),
        b"batcher.last": str(written.last).encode(),
        b"batcher.token": block.token.encode(),
        b"batcher.version": __version__.encode(),
    }


def encode(
    table: pa.Table,
    codec: str,
    level: int | None,
    metadata: Mapping[bytes, bytes] | None = None,
    encodings: Encodings = "v1",
) -> pa.Buffer:
    """Return a table as the bytes of a Parquet file; the same table gives the same bytes.

    It goes to memory first. Writing pages to a Python file takes the interpreter lock for each of them, which cost a
    fifth of the speed beside one busy thread. Raise ArrowInvalid when a value does not fit Parquet's type.
    """
    target = pa.BufferOutputStream()
    chosen = encodings_of(table, encodings, ROW_GROUP_ROWS)
    pq.write_table(
        table.replace_schema_metadata(dict(metadata or {})),
        target,
        row_group_size=ROW_GROUP_ROWS,
        compression=codec,
        compression_level=level,
        use_dictionary=chosen.dictionaries,
        column_encoding=chosen.others or None,
        dictionary_pagesize_limit=DICTIONARY_BYTES,
        write_statistics=True,
    )
    return target.getvalue()


def unstorable(schema: pa.Schema) -> str | None:
    """Say which field Parquet has no type for, or None."""
    for field in schema:
        try:
            encode(pa.schema([field]).empty_table(), "none", None)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            return f"column {field.name!r} of type {field.type} cannot be stored in Parquet"
    return None


def unreadable(schema: pa.Schema) -> list[str]:
    """Return the columns with a type, at any depth, for which Spark 4.0 refuses a whole root, each with the type."""
    return [f"{field.name}: {kind}" for field in schema for kind in _kinds(field.type) if _refused_by_spark(kind)]


def _kinds(kind: pa.DataType) -> Iterator[pa.DataType]:
    """Yield a type and those inside it."""
    yield kind
    for index in range(kind.num_fields):
        yield from _kinds(kind.field(index).type)


def _refused_by_spark(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal256(kind) or (pa.types.is_timestamp(kind) and kind.unit == "ns"))


def poison(table: pa.Table) -> list[tuple[int, str]]:
    """Return the rows that cannot be encoded, each with the first column to blame, ascending.

    It halves the block again and again, so a few bad rows in a big block cost a few dozen encodings of smaller parts.
    """
    found: list[tuple[int, str]] = []

    def search(start: int, length: int, names: list[str]) -> None:
        part = table.slice(start, length)
        guilty = [name for name in names if not encodable(part.select([name]))]
        if not guilty:
            return
        if length == 1:
            found.append((start, guilty[0]))
            return
        half = length // 2
        search(start, half, guilty)
        search(start + half, length - half, guilty)

    search(0, table.num_rows, table.column_names)
    return found


def encodable(table: pa.Table) -> bool:
    """Return whether every value of a table fits Parquet's types."""
    try:
        encode(table, "none", None)
    except pa.ArrowInvalid:
        return False
    return True
