"""Messages made to break a reader: each case of `tests/corpus/json_cases.ndjson` gets the verdict that stands there.

A line of the corpus is a case: its name, the message, and either the `row` (column to the `repr` of its value; every
other column is null) or the `reason` and `path` of the rejection. A message is a list of texts, or of pairs of a text
and how often it is repeated; each character stands for the byte of its number.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import event, example, given, settings

from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.records import RAW_JSON, Decoded
from batcher.testing.values import make_batch, make_records

COLUMNS = [
    pa.field("i", pa.int64()),
    pa.field("u", pa.uint64()),
    pa.field("f", pa.float64()),
    pa.field("d", pa.decimal128(10, 2)),
    pa.field("o", pa.bool_()),
    pa.field("s", pa.string()),
    pa.field("t", pa.timestamp("ms", "UTC")),
    pa.field("l", pa.list_(pa.int64())),
]

FAST = pa.schema(COLUMNS)
"""Blocks are read whole at first."""

SLOW = pa.schema([*COLUMNS, pa.field("r", pa.string(), metadata={RAW_JSON: b"1"})])
"""A value of each message is replaced before it is read."""

WORDS = {
    *("duplicate", "empty", "encoding", "missing", "not_object", "null", "overflow", "precision", "syntax"),
    *("timestamp", "tombstone", "too_deep", "too_large", "trailing_data", "type", "unknown_field"),
    *("binary", "compressed", "framed", "other_format"),
}
"""Every reason there is."""


class Case(NamedTuple):
    name: str
    raw: bytes
    row: dict[str, str] | None
    reason: str | None
    path: str | None

    @property
    def schemas(self) -> list[pa.Schema]:
        about_text = self.path == "r" or "r" in (self.row or ())
        return [SLOW] if about_text else [FAST, SLOW]


def spelled(parts: Any) -> str:
    if isinstance(parts, str):
        return parts
    return "".join(part if isinstance(part, str) else part[0] * part[1] for part in parts)


def read(line: str) -> Case:
    found = json.loads(line)
    row = None if "row" not in found else {name: spelled(parts) for name, parts in found["row"].items()}
    return Case(found["case"], spelled(found["raw"]).encode("latin-1"), row, found.get("reason"), found.get("path"))


CORPUS = [read(line) for line in (Path(__file__).parents[3] / "corpus/json_cases.ndjson").read_text().splitlines()]

GOOD = b'{"i":1,"s":"x"}'


def decode(messages: list[bytes | None], schema: pa.Schema = FAST, **options: Any) -> Decoded:
    return JsonFormat(JsonOptions(**options)).decoder(schema).decode(make_batch(make_records(messages)))


def rows_of(decoded: Decoded) -> dict[int, dict[str, str]]:
    """Return by position the `repr` of every value that is not null."""
    table = decoded.table
    at = table.schema.get_field_index("t")
    # As text: Python's own times end where Arrow's go on.
    table = table.set_column(at, "t", table["t"].cast(pa.string()))
    rows = [{name: repr(value) for name, value in row.items() if value is not None} for row in table.to_pylist()]
    return dict(zip(decoded.positions.to_pylist(), rows, strict=True))


def fate(decoded: Decoded) -> list[Any]:
    """Return what became of each message, in their order; fail unless it is one thing for each."""
    found: dict[int, Any] = dict(rows_of(decoded))
    for rejection in decoded.rejections:
        assert rejection.position not in found
        assert rejection.reason in WORDS
        assert rejection.message.isprintable()
        assert len(rejection.message) < 300
        found[rejection.position] = (rejection.reason, rejection.path)
    for position in decoded.skipped.to_pylist():
        assert position not in found
        found[position] = None
    assert sorted(found) == list(range(len(found)))
    return [found[position] for position in sorted(found)]


def expected(case: Case) -> Any:
    return case.row if case.row is not None else (case.reason, case.path)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name.replace(" ", "_"))
def test_each_case_of_the_corpus_gets_its_verdict_and_leaves_its_neighbours_alone(case: Case) -> None:
    good = {"i": "1", "s": "'x'"}
    for schema in case.schemas:
        assert fate(decode([case.raw], schema)) == [expected(case)]
        assert fate(decode([GOOD, case.raw, GOOD], schema)) == [good, expected(case), good]


@pytest.mark.parametrize("schema", [FAST, SLOW], ids=["fast", "slow"])
@pytest.mark.parametrize("seed", range(2))
def test_the_whole_corpus_in_one_block_gets_the_same_verdicts_in_any_order(schema: pa.Schema, seed: int) -> None:
    cases = [case for case in CORPUS if schema in case.schemas]
    # Some more good ones, so that whole pieces of a block can be read at once.
    mixed: list[Case | None] = [*cases, *[None] * 3 * len(cases)]
    Random(seed).shuffle(mixed)
    found = fate(decode([GOOD if case is None else case.raw for case in mixed], schema))
    assert found == [{"i": "1", "s": "'x'"} if case is None else expected(case) for case in mixed]


def test_no_case_of_the_corpus_stops_the_inference_of_a_schema() -> None:
    form = JsonFormat(JsonOptions())
    batch = make_batch(make_records([case.raw for case in CORPUS] + [GOOD]))
    schema = form.infer(batch)
    assert schema is not None
    assert {"i", "s"} <= set(schema.names)
    decoded = form.decoder(schema).decode(batch)
    assert len(decoded.positions) + len(decoded.rejections) == len(CORPUS) + 1


@pytest.mark.parametrize("limit", [1, 2, 128])
def test_bombs_are_too_deep_whatever_depth_is_allowed(limit: int) -> None:
    bombs = [b"[" * 300_000, b'{"z":' * 60_000, b'{"z":[' * 60_000, b'{"z":' + b"[" * limit + b"]" * limit + b"}"]
    assert fate(decode([*bombs, b"{}"], max_depth=limit)) == [*[("too_deep", None)] * 4, {}]


def mutated(raw: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, cut, junk in edits:
        at %= len(raw) + 1  # noqa: PLW2901
        raw = raw[:at] + junk + raw[at + cut :]
    return raw


SMALL = [case.raw for case in CORPUS if len(case.raw) < 200]
VALID = st.sampled_from([case.raw for case in CORPUS if case.row is not None and len(case.raw) < 200])
JUNK = st.one_of(
    st.sampled_from(
        [b"", b"\0", b"\n", b"\r", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\xff", b"\xed\xa0\x80"]
    ),
    st.sampled_from(
        [b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"\xef\xbb\xbf", b"\\ud800", b"[" * 70, b"\x1e"]
    ),
    st.binary(max_size=4),
)
EDITS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 4), JUNK), min_size=1, max_size=4)
HOSTILE = st.one_of(
    st.binary(max_size=64),
    st.builds(mutated, VALID, EDITS),
    st.builds(lambda a, b, glue: a + glue + b, st.sampled_from(SMALL), st.sampled_from(SMALL), JUNK),
)


@given(
    st.lists(HOSTILE, min_size=1, max_size=8),
    st.sampled_from([FAST, SLOW]),
    st.sampled_from(["ignore", "reject"]),
)
@settings(max_examples=250, deadline=None)
@example([b'{"i":1}\n', b'{"s":"', b'"}'], FAST, "ignore")
def test_any_bytes_are_one_row_or_one_rejection_and_never_change_a_neighbour(
    messages: list[bytes], schema: pa.Schema, on_unknown: str
) -> None:
    between = [message for one in messages for message in (one, GOOD)]
    together = fate(decode([GOOD, *between], schema, on_unknown=on_unknown))
    assert together[::2] == [{"i": "1", "s": "'x'"}] * (len(messages) + 1)
    for message, found in zip(messages, together[1::2], strict=True):
        event("row" if isinstance(found, dict) else f"rejected: {found[0]}")
        assert fate(decode([message], schema, on_unknown=on_unknown)) == [found]


@given(st.lists(st.one_of(HOSTILE, st.none()), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_a_schema_is_inferred_from_any_bytes_or_not_but_never_fails(messages: list[bytes | None]) -> None:
    form = JsonFormat(JsonOptions())
    batch = make_batch(make_records(messages))
    schema = form.infer(batch)
    decoded = form.decoder(schema or pa.schema([("i", pa.int64())])).decode(batch)
    assert len(decoded.positions) + len(decoded.rejections) + len(decoded.skipped) == len(messages)
