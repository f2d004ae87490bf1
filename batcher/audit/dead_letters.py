"""Where the dead letters of a group came from: coordinates only, eight bytes each.

Dead letters of other groups do not count: another pipeline may have refused what this one has lost.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import pyarrow as pa

from batcher.audit.auditor import Letters
from batcher.audit.ranges import ascending
from batcher.dead_letters.directory import read_letters
from batcher.dead_letters.encoding import CONNECT, from_headers
from batcher.errors import ConfigurationError
from batcher.records import Partition, Range, Record
from batcher.sources.kafka.window import LogReader

GROUP = f"{CONNECT}connector.name"


class Coordinates:
    """Gather offsets by partition."""

    def __init__(self) -> None:
        self._offsets: dict[Partition, array[int]] = {}

    def add(self, partition: Partition, offset: int) -> None:
        """Add an offset; it may come again."""
        if partition not in self._offsets:
            self._offsets[partition] = array("q")
        self._offsets[partition].append(offset)

    def columns(self) -> Letters:
        """Return what was gathered, ascending, each once."""
        return {
            partition: ascending(pa.Array.from_buffers(pa.int64(), len(offsets), [None, pa.py_buffer(offsets)]))
            for partition, offsets in self._offsets.items()
        }


def in_directory(path: str, group: str) -> Letters:
    """Return the dead letters of a group in the directory of `--dlq.path`; none where there is no such directory.

    Raise ConfigurationError for what cannot be read.
    """
    found = Coordinates()
    if not Path(path).exists():
        return found.columns()
    try:
        for fields in read_letters(path):
            if fields.get("group") == group:
                found.add(Partition(fields["topic"], fields["partition"]), fields["offset"])
    except ValueError as error:
        raise ConfigurationError(f"--dlq.path: {error}; move it away") from error
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"--dlq.path {path}: a letter lacks its coordinates; move it away") from error
    except OSError as error:
        raise ConfigurationError(f"--dlq.path {path}: {error.strerror}; it has to be read") from error
    return found.columns()


def in_topic(reader: LogReader, group: str) -> Letters:
    """Return the dead letters of a group in the topic of a reader, not open yet. Raise as the reader does.

    Records that are no dead letters are ignored.
    """
    found = Coordinates()
    try:
        for partition in _opened(reader):
            low, high = reader.watermarks(partition)
            if low == high:
                continue
            for run in reader.records(Range(partition, low, high - 1)):
                for index in range(len(run)):
                    _note(found, run.record(index), group)
    finally:
        reader.close()
    return found.columns()


def _opened(reader: LogReader) -> list[Partition]:
    try:
        return list(reader.open())
    except ConfigurationError as error:
        raise ConfigurationError(f"--dlq.topic: {error}") from error


def _note(found: Coordinates, record: Record, group: str) -> None:
    try:
        origin = from_headers(record.key, record.value, record.headers).record
    except ValueError:
        return
    groups = [content for name, content in record.headers if name == GROUP]
    if groups and (groups[-1] or b"").decode(errors="replace") == group:
        found.add(origin.partition, origin.offset)
