"""What a root holds: the ranges in the names of its files, and the offsets inside where names cannot tell.

One listing answers for all partitions. Files are opened only where a name leaves the answer open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batcher.errors import SinkMisconfigured
from batcher.protocols import COPIES
from batcher.records import Partition, Range
from sinks.parquet.files import begins, parsed_name
from sinks.parquet.stores import Store

# It has to have a letter, so that the timestamp at the end of a whole token is never taken for a digest.
DERIVED: Final = re.compile(r"\|(?=[0-9]*[a-f])[0-9a-f]{16}(?=\||$)")
"""What the token of a part of a block adds to the token of the whole."""


LOOK_BACK: Final = 1_024
"""How many offsets before a range are looked at first for a file that reaches into it."""

LOOK_BACK_FACTOR: Final = 16

MAX_OFFSET: Final = 2**63 - 1


class FoundFiles(NamedTuple):
    """Name a file of a root, and the range that it was written for."""

    name: str
    holds: Range


def listed(store: Store, wanted: Callable[[Range], bool]) -> list[FoundFiles]:
    """Return the files whose range is wanted, in no order; files whose names are not ours have none."""
    found = []
    for name in store.names():
        holds = parsed_name(name.rpartition("/")[2])
        if holds is not None and wanted(holds):
            found.append(FoundFiles(name, holds))
    return found


def overlapping(store: Store, ranges: Sequence[Range], *, flat: bool) -> list[FoundFiles]:
    """Return the files whose range has an offset in common with one of these, which are of different partitions.

    In a `flat` root of a store that can list from a name on, no other names are read. Names are in the order of where
    ranges begin. A range that begins before the wanted one is looked for in steps that grow: of those that lie beside
    each other, as they do unless a root was loaded twice, it is the last one before it.
    """
    if flat:
        spans = [_span(one.partition, one.first, one.last) for one in ranges]
        found = store.between(spans)
        if found is not None:
            ours = [_ours(names) for names in found]
            return [one for part in ours for one in part] + _reaching_in(store, ranges)
    wanted = {one.partition: one for one in ranges}

    def overlaps(holds: Range) -> bool:
        one = wanted.get(holds.partition)
        return one is not None and holds.last >= one.first and holds.first <= one.last

    return listed(store, overlaps)


def _reaching_in(store: Store, ranges: Sequence[Range]) -> list[FoundFiles]:
    """Return the files that begin before a range and reach into it."""
    found: list[FoundFiles] = []
    looking = [(one, one.first) for one in ranges if one.first > 0]
    step = LOOK_BACK
    while looking:
        spans = [_span(one.partition, max(0, one.first - step), end - 1) for one, end in looking]
        listings = store.between(spans) or []
        further = []
        for (one, _), names in zip(looking, listings, strict=True):
            before = _ours(names)
            found += (file for file in before if file.holds.last >= one.first)
            if not before and one.first > step:
                further.append((one, one.first - step))
        looking, step = further, step * LOOK_BACK_FACTOR
    return found


def _span(partition: Partition, first: int, last: int) -> tuple[str, str]:
    """Return the span of the names of files whose range begins at `first` to `last`."""
    return begins(partition, first), f"{begins(partition, last)}~"


def _ours(names: Sequence[str]) -> list[FoundFiles]:
    ranges = ((name, parsed_name(name)) for name in names)
    return [FoundFiles(name, holds) for name, holds in ranges if holds is not None]


def copies(store: Store, partition: Partition, first: int, last: int, *, flat: bool = False) -> pa.Table:
    """Return the offsets of a range that the files hold, ascending, with how often each is there (`COPIES`)."""
    chunks = [pa.array([], pa.int64())]
    for name, holds in overlapping(store, [Range(partition, first, last)], flat=flat):
        column = _offsets(store, name, holds)
        if column is not None:
            chunks.append(column.filter(pc.and_(pc.greater_equal(column, first), pc.less_equal(column, last))))
    found = pc.value_counts(pa.concat_arrays(chunks))
    return pa.table([found.field("values"), found.field("counts")], schema=COPIES).sort_by("offset").combine_chunks()


def max_offset_above(
    store: Store, positions: Mapping[Partition, int], *, offsets: bool, flat: bool = False
) -> dict[Partition, int]:
    """Return the highest offset of each partition that has one at or above its position, as far as names tell.

    The end of a range that begins at or above the position is taken as it is: its last records may have been compacted
    away or refused, but they were dealt with. A file whose range has the position inside is opened; without `offsets`
    in the files its name has to suffice.
    """
    highest: dict[Partition, int] = {}
    doubtful = []
    above = [Range(partition, position, MAX_OFFSET) for partition, position in positions.items()]
    for one in overlapping(store, above, flat=flat):
        partition, first, last = one.holds
        if first >= positions[partition] or not offsets:
            highest[partition] = max(last, highest.get(partition, last))
        else:
            doubtful.append(one)
    for name, holds in doubtful:
        partition = holds.partition
        if holds.last <= highest.get(partition, -1):
            continue
        column = _offsets(store, name, holds)
        found = None if column is None else pc.max(column).as_py()
        if found is not None and found >= positions[partition]:
            highest[partition] = max(found, highest.get(partition, found))
    return highest


def attempted(store: Store, name: str, token: str, table: pa.Table) -> bool | None:
    """Return whether a file comes from an earlier attempt to write these records; None when there is no such file.

    It does when its token is the block's, or when both are of parts of one block. With another token (another group
    loads the topic again) the offsets that both have must have the same timestamps, and there must be some. A topic
    that was deleted and made again starts at 0 again, and its files must not replace the old ones.
    """
    file = store.opened(name)
    if file is None:
        return None
    with file:
        try:
            there = pq.ParquetFile(file)
            theirs = (there.metadata.metadata or {}).get(b"batcher.token")
            return theirs is not None and (_of_one_block(theirs.decode(), token) or _same_records(there, table))
        except pa.ArrowInvalid:
            return False  # not a Parquet file at all, so not ours


def _of_one_block(one: str, other: str) -> bool:
    return DERIVED.sub("", one) == DERIVED.sub("", other)


def _same_records(there: pq.ParquetFile, table: pa.Table) -> bool:
    """Return whether the offsets that a file and a table share have the same timestamps; False when they share none."""
    columns = ["_offset", "_timestamp"]
    if not set(columns) <= set(there.schema_arrow.names) & set(table.column_names):
        return False
    theirs, ours = there.read(columns=columns).combine_chunks(), table.select(columns).combine_chunks()
    shared = pc.index_in(ours.column("_offset"), value_set=theirs.column("_offset"))
    before = theirs.column("_timestamp").take(shared.drop_null()).cast(pa.int64()).fill_null(-1)
    now = ours.column("_timestamp").filter(shared.is_valid()).cast(pa.int64()).fill_null(-1)
    return len(now) > 0 and bool(before.equals(now))


def _offsets(store: Store, name: str, holds: Range) -> pa.Int64Array | None:
    """Return the offsets in a file; None when it was replaced or removed since it was listed."""
    file = store.opened(name)
    if file is None:
        return None
    with file:
        try:
            column = pq.ParquetFile(file).read(columns=["_offset"]).column("_offset")
        except (pa.ArrowInvalid, KeyError) as error:
            raise SinkMisconfigured(
                f"the file for {holds} in {store.label} has no readable column _offset: nobody can tell what it holds"
            ) from error
    return column.combine_chunks().cast(pa.int64())
