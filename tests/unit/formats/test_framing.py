"""Framing: every record is in exactly one place, under the schema that its frame names."""

import struct
import uuid
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.errors import ConfigurationError
from batcher.formats import framing
from batcher.formats.framing import HEADER, Framing, Split
from batcher.formats.writer_schema import SchemaKey
from batcher.records import Batch, Headers, Partition
from batcher.testing.values import EVENTS_0, make_batch, make_records

GUID = uuid.UUID("0b9d4e02-1c5e-4c1e-9d5e-5a0a3f6f0f11")
CONFLUENT = Framing("confluent")
PROTOBUF = Framing("confluent", indexes=True)


def prefix(number: int, payload: bytes = b"") -> bytes:
    return struct.pack(">bI", 0, number) + payload


def batch_of(values: Sequence[bytes | None], headers: Sequence[Headers | None] | None = None) -> Batch:
    return make_batch(make_records(values, headers=headers))


def in_header(frame: bytes) -> Headers:
    return (("trace", b"1"), (HEADER, frame))


def found(split: Split) -> dict[SchemaKey | None, list[tuple[int, bytes]]]:
    for group in split.groups:
        assert group.positions.type == pa.int64()
        assert group.payloads.type == pa.binary()
        assert group.payloads.null_count == 0
        positions = group.positions.to_pylist()
        assert positions == sorted(positions)
    assert len({group.key for group in split.groups}) == len(split.groups)
    return {
        group.key: list(zip(group.positions.to_pylist(), group.payloads.to_pylist(), strict=True))
        for group in split.groups
    }


def refused(split: Split) -> list[tuple[int, str]]:
    return [(rejection.position, rejection.reason) for rejection in split.rejections]


def test_without_framing_the_value_is_the_payload() -> None:
    split = Framing().split(batch_of([prefix(1, b"a"), b"{}", b""], [in_header(b"\0\0\0\0\1"), None, None]))

    assert found(split) == {None: [(0, prefix(1, b"a")), (1, b"{}"), (2, b"")]}
    assert split.rejections == ()


def test_records_are_grouped_by_the_id_before_their_payload() -> None:
    values = [prefix(7, b"a"), prefix(300, b"b"), prefix(7), prefix(2**32 - 1, b"c"), prefix(300, b"\0d")]

    assert found(CONFLUENT.split(batch_of(values))) == {
        SchemaKey(7): [(0, b"a"), (2, b"")],
        SchemaKey(300): [(1, b"b"), (4, b"\0d")],
        SchemaKey(2**32 - 1): [(3, b"c")],
    }


def test_a_header_names_the_schema_by_guid_or_id_and_the_value_is_the_payload() -> None:
    values = [b"a", prefix(9, b"b"), prefix(5, b"c"), b"d"]
    guid = in_header(b"\1" + GUID.bytes)
    headers = [guid, in_header(b"\0" + struct.pack(">I", 5)), None, guid]

    assert found(CONFLUENT.split(batch_of(values, headers))) == {
        SchemaKey(guid=str(GUID)): [(0, b"a"), (3, b"d")],
        SchemaKey(5): [(1, prefix(9, b"b")), (2, b"c")],
    }


def test_the_last_header_of_the_name_counts_and_one_without_a_value_does_not() -> None:
    two = ((HEADER, b"\0\0\0\0\1"), (HEADER, b"\0\0\0\0\2"), (HEADER, None))

    split = CONFLUENT.split(batch_of([b"a", prefix(3, b"b")], [two, ((HEADER, None),)]))

    assert found(split) == {SchemaKey(2): [(0, b"a")], SchemaKey(3): [(1, b"b")]}


@pytest.mark.parametrize("frame", [b"", b"\0\0\0\0", b"\1" + GUID.bytes[:15], b"\2\0\0\0\1", b"\0\0\0\0\1\0", b"\xff"])
def test_a_header_that_names_no_schema_costs_its_record(frame: bytes) -> None:
    split = CONFLUENT.split(batch_of([b"a", prefix(1, b"b")], [in_header(frame), None]))

    assert refused(split) == [(0, "frame")]
    assert found(split) == {SchemaKey(1): [(1, b"b")]}


def test_a_record_without_a_frame_is_refused_where_one_is_due() -> None:
    split = CONFLUENT.split(batch_of([b"{}", prefix(1, b"a"), b"", b"\0\0\0\0", b"\1" + GUID.bytes]))

    assert refused(split) == [(position, "unframed") for position in (0, 2, 3, 4)]
    assert found(split) == {SchemaKey(1): [(1, b"a")]}
    assert "{" not in split.rejections[0].message


def test_where_frames_may_be_absent_a_bare_record_is_its_payload() -> None:
    values = [b'{"a":1}', prefix(1, b"{}"), b"", b"\0\0", b"{}"]

    split = Framing("auto").split(batch_of(values, [None, None, None, None, in_header(b"\0\0\0\0\1")]))

    assert found(split) == {SchemaKey(1): [(1, b"{}"), (4, b"{}")], None: [(0, b'{"a":1}'), (2, b""), (3, b"\0\0")]}
    assert split.rejections == ()


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        (b"\0", (0,)),
        (b"\2\0", (0,)),
        (b"\2\2", (1,)),
        (b"\4\4\0", (2, 0)),
        (b"\2\x80\1", (64,)),
        (b"\4\x80\1\2", (64, 1)),
        (b"\2\xfe\xff\xff\xff\x0f", (2**31 - 1,)),
        (b"\x40" + b"\2" * 32, (1,) * 32),
    ],
)
def test_message_indexes_lead_to_the_message_type(frame: bytes, path: tuple[int, ...]) -> None:
    values = [prefix(1, frame + b"a"), prefix(1, b"\0b"), prefix(1, frame)]

    groups = found(PROTOBUF.split(batch_of([*values, b"c"], [None] * 3 + [in_header(b"\1" + GUID.bytes + frame)])))

    by_guid = SchemaKey(guid=str(GUID), indexes=path)
    assert groups.pop(by_guid) == [(3, b"c")]
    assert groups.pop(SchemaKey(1, indexes=path))[:: 2 if path == (0,) else 1] == [(0, b"a"), (2, b"")]
    assert groups == ({} if path == (0,) else {SchemaKey(1, indexes=(0,)): [(1, b"b")]})


@pytest.mark.parametrize(
    "frame",
    [b"", b"\2", b"\4\2", b"\2\x80", b"\1", b"\2\1", b"\x42" + b"\0" * 33, b"\x80\1", b"\2" + b"\x80" * 5 + b"\0"],
)
def test_message_indexes_that_lead_nowhere_cost_their_record(frame: bytes) -> None:
    values = [prefix(1, frame), prefix(1, b"\0a"), b"b"]

    split = PROTOBUF.split(batch_of(values, [None, None, in_header(b"\0\0\0\0\1" + frame)]))

    assert refused(split) == [(0, "frame"), (2, "frame")]
    assert found(split) == {SchemaKey(1, indexes=(0,)): [(1, b"a")]}


def test_tombstones_are_skipped_or_refused_by_the_policy() -> None:
    batch = batch_of([None, prefix(1, b"a"), None], [in_header(b"\0\0\0\0\1"), None, None])

    for kind in framing.FramingKind.__args__:  # type: ignore[attr-defined]
        skipping = Framing(kind).split(batch)
        assert skipping.skipped.to_pylist() == [0, 2]
        assert [group.positions.to_pylist() for group in skipping.groups] == [[1]]
        refusing = Framing(kind, tombstones="reject").split(batch)
        assert refusing.skipped.to_pylist() == []
        assert refused(refusing) == [(0, "tombstone"), (2, "tombstone")]


def test_a_value_beyond_the_limit_is_refused_with_its_size_frame_included() -> None:
    split = Framing("confluent", max_message_bytes=7).split(batch_of([prefix(1, b"abc"), prefix(1, b"ab"), b"x" * 9]))

    assert refused(split) == [(0, "too_large"), (2, "too_large")]
    assert split.rejections[0].message == "the message has 8 bytes, more than --decode.max-message-bytes 7"
    assert found(split) == {SchemaKey(1): [(1, b"ab")]}


@pytest.mark.parametrize("limit", [1, (1 << 29) + 1])
def test_a_limit_that_cannot_work_is_refused(limit: int) -> None:
    with pytest.raises(ConfigurationError, match="max-message-bytes"):
        Framing(max_message_bytes=limit)


def test_positions_count_through_partitions_and_chunks() -> None:
    other = Partition("events", 1)
    header = in_header(b"\0\0\0\0\3")
    batch = make_batch(
        make_records([prefix(1, b"d")], partition=other),
        make_records([prefix(1, b"e"), b"f"], partition=other, first_offset=1, headers=[None, header]),
        make_records([prefix(1, b"a"), prefix(2, b"b")], partition=EVENTS_0),
        make_records([b"c", None], partition=EVENTS_0, first_offset=2, headers=[header, None]),
    ).joined()
    assert batch.values().num_chunks > 1

    split = CONFLUENT.split(batch)

    assert found(split) == {
        SchemaKey(1): [(0, b"a"), (4, b"d"), (5, b"e")],
        SchemaKey(2): [(1, b"b")],
        SchemaKey(3): [(2, b"c"), (6, b"f")],
    }
    assert split.skipped.to_pylist() == [3]


def test_records_cut_out_of_a_run_keep_their_own_headers() -> None:
    headers = [in_header(struct.pack(">bI", 0, number)) for number in range(6)]
    run = make_records([b"%d" % number for number in range(6)], headers=headers)

    assert found(CONFLUENT.split(make_batch(run.slice(2, 3)))) == {
        SchemaKey(2): [(0, b"2")],
        SchemaKey(3): [(1, b"3")],
        SchemaKey(4): [(2, b"4")],
    }


def test_a_batch_too_large_for_one_array_is_split_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "_PIECE_BYTES", 20)
    runs = [
        make_records(
            [prefix(1, b"a"), None, b"x"], partition=Partition("t", number), headers=[None, None, in_header(b"\1")]
        )
        for number in range(3)
    ]

    split = CONFLUENT.split(make_batch(*runs))

    assert len(split.groups) > 1
    assert [p for group in split.groups for p in group.positions.to_pylist()] == [0, 3, 6]
    assert {group.key for group in split.groups} == {SchemaKey(1)}
    assert split.skipped.to_pylist() == [1, 4, 7]
    assert refused(split) == [(2, "frame"), (5, "frame"), (8, "frame")]


FRAGMENTS = st.sampled_from([b"\0", b"\0\0\0\0\1", b"\0\0\0\0\2", b"\2", b"\4\2", b"\x80", b"{", GUID.bytes, b"\1"])
BYTES = st.lists(FRAGMENTS | st.binary(max_size=3), max_size=5).map(b"".join)
RECORDS = st.tuples(st.none() | BYTES, st.none() | st.lists(st.none() | BYTES, max_size=2))


def with_headers(frames: list[bytes | None] | None) -> Headers | None:
    return None if frames is None else tuple((HEADER, frame) for frame in frames)


def outcomes(split: Split) -> dict[int, object]:
    placed: list[tuple[int, object]] = [
        (position, (group.key, payload))
        for group in split.groups
        for position, payload in zip(group.positions.to_pylist(), group.payloads.to_pylist(), strict=True)
    ]
    placed += [(one.position, (one.reason, one.message)) for one in split.rejections]
    placed += [(position, "skipped") for position in split.skipped.to_pylist()]
    assert len(placed) == len(dict(placed)), "a position is in two places"
    return dict(placed)


@given(
    st.lists(RECORDS, min_size=1, max_size=12),
    st.sampled_from([Framing(), CONFLUENT, PROTOBUF, Framing("auto"), Framing("auto", True, "reject", 9)]),
)
def test_each_record_is_in_one_place_which_does_not_depend_on_its_neighbours(
    records: list[tuple[bytes | None, list[bytes | None] | None]], chosen: Framing
) -> None:
    values = [value for value, _ in records]
    headers = [with_headers(frames) for _, frames in records]

    together = outcomes(chosen.split(batch_of(values, headers)))

    assert sorted(together) == list(range(len(records)))
    for position, (value, header) in enumerate(zip(values, headers, strict=True)):
        alone = outcomes(chosen.split(batch_of([value], [header])))
        assert alone == {0: together[position]}
