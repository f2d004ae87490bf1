"""A message of a queue as one JSON object: what the command line prints and reads."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from batcher.protocols.publisher import Outgoing
from batcher.records import Headers
from batcher.sources.queue.columns import MESSAGE_TYPE, Row, message_id, unpacked
from batcher.sources.queue.file import QueueShape, lane_of, offset_of

FIELDS: Final = (
    *("id", "payload", "message_type", "priority", "key", "headers", "delay_s"),
    *("timestamp", "status", "attempt"),
)
"""What an envelope may have. The last three are the queue's own answer, and not looked at in what is published."""


class Draft(NamedTuple):
    """Hold a message to publish, and the id that its publisher gives it, if any."""

    message: Outgoing
    id: str | None = None


def envelope(shape: QueueShape, row: Row, status: str, attempt: int | None = None) -> dict[str, Any]:
    """Return a message as a JSON object; `status` says what has become of it for one group."""
    place, published_ms, id_, key, value, kind, headers = row
    lane = lane_of(place)
    told: dict[str, Any] = {
        "id": id_ or message_id(lane, offset_of(place)),
        "timestamp": datetime.fromtimestamp(published_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "payload": _payload(value),
        "status": status,
        "message_type": kind,
        "priority": shape.priority(lane),
    }
    if key is not None:
        told["key"] = _text(key)
    if headers is not None:
        told["headers"] = [[name, None if content is None else _text(content)] for name, content in unpacked(headers)]
    if attempt is not None:
        told["attempt"] = attempt
    return told


def draft(text: str | bytes) -> Draft:
    """Return what an envelope says is to be published; raise ValueError, naming the fault, for what is none."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(f"is no JSON object: {error}") from None
    if not isinstance(found, dict) or "payload" not in found:
        raise ValueError("is no envelope: a JSON object with a payload")
    if unknown := sorted(found.keys() - set(FIELDS)):
        raise ValueError(f"has the field {unknown[0]!r}, which no envelope has: they have {', '.join(FIELDS)}")
    id_, kind, key = (_optional_text(found, name) for name in ("id", "message_type", "key"))
    message = Outgoing(
        bytes_of(found["payload"]),
        None if key is None else key.encode(),
        (*typed_headers(kind), *_headers(found.get("headers"))),
        float(_number(found, "delay_s", int | float)),
        int(_number(found, "priority", int)),
    )
    return Draft(message, id_)


def typed_headers(kind: str | None) -> Headers:
    """Return the header that carries a type."""
    return () if kind is None else ((MESSAGE_TYPE, kind.encode()),)


def bytes_of(payload: Any) -> bytes:
    """Return a payload as bytes: text as it is, what `base64` holds decoded, and anything else as compact JSON."""
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, dict) and payload.keys() == {"base64"}:
        try:
            return base64.b64decode(payload["base64"], validate=True)
        except (ValueError, TypeError):
            raise ValueError("has a payload whose base64 is none") from None
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def _payload(value: bytes | None) -> Any:
    """Return a value as the JSON that it is, else as text, else in base64."""
    if value is None:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return _text(value)
    # Text that is a JSON string would come back without its quotes.
    return found if isinstance(found, dict | list) else _text(value)


def _text(content: bytes) -> Any:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _optional_text(found: dict[str, Any], name: str) -> str | None:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"has a {name} that is no text")
    return value


def _number(found: dict[str, Any], name: str, kind: Any) -> float:
    value = found.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, kind) or value < 0:
        raise ValueError(f"has a {name} that is no number from 0 on")
    return float(value)


def _headers(found: Any) -> Headers:
    if found is None:
        return ()
    try:
        pairs = msgspec.convert(found, list[tuple[str, Any]])
    except msgspec.ValidationError:
        raise ValueError("has headers that are no list of pairs") from None
    return tuple((name, None if content is None else bytes_of(content)) for name, content in pairs)
