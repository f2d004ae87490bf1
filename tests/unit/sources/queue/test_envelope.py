"""What is published as an envelope comes back as one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batcher.protocols import Outgoing
from batcher.sources.queue.columns import packed, to_records
from batcher.sources.queue.envelope import draft, envelope
from batcher.sources.queue.file import QueueShape, place_of
from batcher.sources.queue.publisher import typed

SHAPE = QueueShape("q", lanes=2, priorities=2)


def told(value: bytes | None, **parts: Any) -> dict[str, Any]:
    row = (place_of(3, 7), 1_767_225_600_123, parts.get("id"), parts.get("key"), value, parts.get("type"), None)
    return envelope(SHAPE, (*row[:6], packed(parts.get("headers", ()))), "pending")


def test_a_message_is_told_with_all_its_parts() -> None:
    headers = (("h", b"v"), ("n", None), ("b", b"\xff"))
    assert told(b'{"a":1}', type="order", key=b"k", headers=headers) == {
        "id": "3-7",
        "timestamp": "2026-01-01T00:00:00.123+00:00",
        "payload": {"a": 1},
        "status": "pending",
        "message_type": "order",
        "priority": 1,
        "key": "k",
        "headers": [["h", "v"], ["n", None], ["b", {"base64": "/w=="}]],
    }


@pytest.mark.parametrize("value", [b"text", b'"quoted"', b"17", b'{"a":[1,{"b":null}]}', b"[]", b"\xff\x00", b"", b"{"])
def test_a_payload_comes_back_byte_for_byte(value: bytes) -> None:
    answer = {"payload": told(value)["payload"], "timestamp": "x", "status": "x", "attempt": 2}
    assert draft(json.dumps(answer)).message == Outgoing(value)


def test_an_envelope_says_everything_about_a_message() -> None:
    given = {
        "id": "one",
        "payload": "p",
        "message_type": "t",
        "priority": 1,
        "key": "k",
        "headers": [["h", "v"], ["n", None]],
    }
    found = draft(json.dumps({**given, "delay_s": 1.5}))
    assert found.id == "one"
    assert found.message == Outgoing(b"p", b"k", (("message_type", b"t"), ("h", b"v"), ("n", None)), 1.5, 1)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "no JSON object"),
        ("[]", "no envelope"),
        ("{}", "no envelope"),
        ('{"payload":1,"prority":1}', "'prority'"),
        ('{"payload":1,"priority":"high"}', "a priority that is no number"),
        ('{"payload":1,"priority":1.5}', "a priority that is no number"),
        ('{"payload":1,"priority":true}', "a priority that is no number"),
        ('{"payload":1,"delay_s":-1}', "a delay_s that is no number"),
        ('{"payload":1,"id":7}', "an id|a id that is no text"),
        ('{"payload":1,"headers":{"a":1}}', "headers that are no list"),
        ('{"payload":{"base64":"?"}}', "base64 is none"),
    ],
)
def test_what_is_no_envelope_is_refused_with_its_fault(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        draft(text)


def rows(*parts: tuple[Any, ...], first: int = 0, step: int = 1) -> list[Any]:
    return [(place_of(3, first + at * step), 5, *one) for at, one in enumerate(parts)]


def test_columns_have_the_ids_keys_and_headers_of_their_messages() -> None:
    kind, rest = typed((("a", b"1"), ("message_type", b"t")))
    found = to_records(
        SHAPE.partition(3),
        rows((None, None, b"v", None, None), ("mine", b"k", None, "only", None), (None, None, b"w", kind, rest)),
    )
    assert found.offsets.to_pylist() == [0, 1, 2]
    assert found.ids is not None
    assert found.ids.to_pylist() == ["3-0", "mine", "3-2"]
    assert found.keys.to_pylist() == [None, b"k", None]
    assert found.values.to_pylist() == [b"v", None, b"w"]
    assert [found.record(row).headers for row in range(3)] == [
        (),
        (("message_type", b"only"),),
        (("message_type", b"t"), ("a", b"1")),
    ]


def test_types_alone_become_headers_and_messages_without_any_have_none() -> None:
    found = to_records(SHAPE.partition(3), rows(*[(None, None, b"v", kind, None) for kind in (None, "a", None, "b")]))
    assert found.headers is not None
    found.headers.validate(full=True)
    assert found.headers.to_pylist() == [
        None,
        [{"key": "message_type", "value": b"a"}],
        None,
        [{"key": "message_type", "value": b"b"}],
    ]
    assert to_records(SHAPE.partition(3), rows((None, None, b"v", None, None))).headers is None


def test_offsets_with_gaps_are_kept() -> None:
    found = to_records(SHAPE.partition(3), rows(*[(None, None, b"v", None, None)] * 3, first=10, step=5))
    assert found.offsets.to_pylist() == [10, 15, 20]
