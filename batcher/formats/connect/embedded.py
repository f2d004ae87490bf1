"""JSON whose messages hold their own schema, as Connect's JsonConverter writes them: `{"schema":…,"payload":…}`.

All records of one table begin with the same bytes up to `"payload":`, so records are told apart by these bytes on whole
columns. What is written in another way is taken apart one by one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.framing import Framing, Group, Split
from batcher.formats.writer_schema import SchemaKey, SchemaUnknown, WriterSchema
from batcher.records import Batch, Rejection

_BEGINS: Final = r'\A[ \t\r\n]*\{[ \t\r\n]*"schema"[ \t\r\n]*:'
_PAYLOAD: Final = b',"payload":'
_MAX_STARTS: Final = 64
"""The different places of a payload that are looked for on whole columns. Each takes a look at all records."""


class _Whole(msgspec.Struct, forbid_unknown_fields=True):
    schema: msgspec.Raw = msgspec.Raw(b"null")
    payload: msgspec.Raw = msgspec.Raw(b"null")


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    schema: msgspec.Raw


@dataclass(slots=True)
class EmbeddedSchemas:
    """Hold the schemas that were met in messages (`WriterSchemas`), and tell records apart by them (`Splitting`).

    A record without a schema is in a group without a key, whole; so is the payload of one whose schema is null. Not for
    several threads at once.
    """

    framing: Framing
    _texts: dict[SchemaKey, str] = field(default_factory=dict)

    def get(self, key: SchemaKey) -> WriterSchema:
        """Return a schema of the last batch that was split. Raise SchemaUnknown for any other."""
        text = self._texts.get(key)
        if text is None:
            raise SchemaUnknown(f"{key} was in no message")
        return WriterSchema("json", text)

    def split(self, batch: Batch) -> Split:
        """Return the payloads of a joined batch by schema. Never raises because of a record."""
        self._texts = {}
        bare = self.framing.split(batch)
        groups: dict[SchemaKey | None, list[tuple[pa.Array, pa.Array]]] = {}
        rejections = list(bare.rejections)
        for group in bare.groups:
            embedded = pc.match_substring_regex(group.payloads, _BEGINS)
            rest = pc.invert(embedded)
            if pc.any(rest).as_py():
                groups.setdefault(None, []).append((group.positions.filter(rest), group.payloads.filter(rest)))
            positions, values = group.positions.filter(embedded), group.payloads.filter(embedded)
            if len(values):
                left = self._by_bytes(positions, values, groups)
                rejections += self._one_by_one(*left, groups)
        rejections.sort(key=lambda one: one.position)
        return Split(tuple(_joined(key, parts) for key, parts in groups.items()), tuple(rejections), bare.skipped)

    def _by_bytes(
        self, positions: pa.Array, values: pa.Array, groups: dict[SchemaKey | None, list[tuple[pa.Array, pa.Array]]]
    ) -> tuple[pa.Array, pa.Array]:
        """Take the records whose schema is the same bytes as that of others; return what is left."""
        starts = pc.find_substring(values, _PAYLOAD)
        usual = pc.and_(pc.greater_equal(starts, 0), pc.ends_with(values, b"}"))
        rows: list[pa.Array] = []
        distinct = pc.unique(starts.filter(usual)).to_pylist()
        for start in distinct if len(distinct) <= _MAX_STARTS else ():
            mine = pc.and_(usual, pc.equal(starts, start))
            heads = pc.binary_slice(values.filter(mine), 0, start).dictionary_encode()
            numbers = pc.indices_nonzero(mine)
            for code, head in enumerate(heads.dictionary.to_pylist()):
                text = _schema_in(head)
                if text is None:
                    continue
                some = numbers.filter(pc.equal(heads.indices, code))
                rows.append(some)
                payloads = pc.binary_slice(values.take(some), start + len(_PAYLOAD), -1)
                groups.setdefault(self._key(text), []).append((positions.take(some), payloads))
        if not rows:
            return positions, values
        left = pc.invert(pc.is_in(pa.arange(0, len(values)), pa.concat_arrays(rows).cast(pa.int64())))
        return positions.filter(left), values.filter(left)

    def _one_by_one(
        self, positions: pa.Array, values: pa.Array, groups: dict[SchemaKey | None, list[tuple[pa.Array, pa.Array]]]
    ) -> list[Rejection]:
        found: dict[SchemaKey | None, tuple[list[int], list[bytes]]] = {}
        refused: list[Rejection] = []
        for position, value in zip(positions.to_pylist(), values.to_pylist(), strict=True):
            try:
                whole = msgspec.json.decode(value, type=_Whole)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                refused.append(Rejection(position, "syntax", "is no JSON of a schema and a payload"))
                continue
            rows, payloads = found.setdefault(self._key(bytes(whole.schema)), ([], []))
            rows.append(position)
            payloads.append(bytes(whole.payload))
        for key, (rows, payloads) in found.items():
            groups.setdefault(key, []).append((pa.array(rows, pa.int64()), pa.array(payloads, pa.binary())))
        return refused

    def _key(self, text: bytes) -> SchemaKey | None:
        if text.strip() == b"null":
            return None
        key = SchemaKey(guid=f"in the message ({hashlib.sha256(text).hexdigest()[:16]})")
        self._texts.setdefault(key, text.decode(errors="replace"))
        return key


def _schema_in(head: bytes) -> bytes | None:
    """Return the schema at the beginning of a message, given what comes before its payload; None if it is none."""
    try:
        return bytes(msgspec.json.decode(head + b"}", type=_Head).schema)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _joined(key: SchemaKey | None, parts: list[tuple[pa.Array, pa.Array]]) -> Group:
    positions = pa.concat_arrays([one for one, _ in parts])
    payloads = pa.concat_arrays([other for _, other in parts])
    if len(parts) > 1:
        order = pc.sort_indices(positions)
        positions, payloads = positions.take(order), payloads.take(order)
    return Group(key, positions, payloads)
