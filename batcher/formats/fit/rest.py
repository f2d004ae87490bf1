"""What no column takes, put together again in the shape of the record: JSON texts of parts become those of wholes.

As in `json/remainder.py`: an object has what is unknown in it, a list has null for items without, a map has the entries
with something.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.fit.parts import HeldValues
from batcher.formats.json.syntax import quote
from batcher.formats.quotes import quoted


def object_of(rests: Mapping[str, pa.StringArray]) -> pa.StringArray | None:
    """Return the objects of these members, null where no member has anything; None where none ever has."""
    parts = {name: rest for name, rest in rests.items() if rest.null_count < len(rest)}
    if not parts:
        return None
    # Arrow 26 loses rows where it is to skip nulls and there is one column: so every part brings its comma along.
    members = [pc.binary_join_element_wise(f",{quote(name)}:", rest, "") for name, rest in parts.items()]
    some = members[0].is_valid()
    for member in members[1:]:
        some = pc.or_(some, member.is_valid())
    joined = pc.binary_join_element_wise(*(pc.fill_null(member, "") for member in members), "")
    return _where(some, pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(joined, 1), "}", ""))


def list_of(rest: pa.StringArray, parts: HeldValues) -> pa.StringArray:
    """Return the lists of these items, null where no item has anything."""
    lists = pa.ListArray.from_arrays(parts.offsets, pc.fill_null(rest, "null"))
    return _where(parts.any_of(rest.is_valid()), pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", ""))


def map_of(names: pa.StringArray, rest: pa.StringArray, parts: HeldValues) -> pa.StringArray:
    """Return the objects of those entries that have something; `names` are their keys in JSON."""
    pairs = pc.binary_join_element_wise(names, ":", rest, "")
    entries = pa.table({"row": parts.rows.filter(pairs.is_valid()), "pair": pairs.drop_null()})
    # On one thread the entries of a row keep their order.
    grouped = entries.group_by("row", use_threads=False).aggregate([("pair", "list")]).combine_chunks()
    texts = pc.binary_join(grouped["pair_list"].combine_chunks(), ",")
    places = pc.index_in(pa.arange(0, len(parts.offsets) - 1), value_set=grouped["row"].combine_chunks())
    return pc.binary_join_element_wise("{", texts.take(places), "}", "")


def names_in_json(keys: pa.Array) -> pa.StringArray:
    """Return the keys of a map, which are texts or bytes of texts, as JSON."""
    return quoted(keys.cast(pa.string()))


def _where(some: pa.BooleanArray, texts: Any) -> pa.StringArray:
    return pc.if_else(some, texts, pa.scalar(None, pa.string()))
