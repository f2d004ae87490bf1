"""Made-up documents in seven everyday shapes, whose fields and types drift from record to record.

What a loader meets that was set up by looking at the first records only: fields that come later, fields in one record
of 500, fields that are null until they are objects, numbers that get fractions, one field of two types, lists that are
empty at first, keys with dots in them. `documents("webhooks", 3000)` is the same at every call.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

Make = Callable[[random.Random, int], dict[str, Any]]

NEW_AT: Final = 1200
"""The number of the record at which new fields begin to come."""

RARE: Final = 500
"""One record in so many has the rare fields."""

_WORDS: Final = ("amber", "brook", "cedar", "delta", "ember", "fjord", "grove", "Zürich", "東京", "naïve", "🚲", "ß")


def documents(shape: str, count: int, *, seed: int = 11) -> Iterator[bytes]:
    """Yield documents of a shape as JSON, the same ones for the same arguments; raise KeyError for an unknown shape."""
    chance = random.Random(f"{shape} {seed}")
    make = SHAPES[shape]
    for number in range(count):
        yield json.dumps(make(chance, number), ensure_ascii=number % 2 == 0).encode()


def _rare(number: int) -> bool:
    return number % RARE == RARE - 1


def _is_whole(number: int) -> bool:
    return number < NEW_AT or number % 3 > 0


def _word(chance: random.Random) -> str:
    return chance.choice(_WORDS)


def _time(number: int, digits: str = "") -> str:
    return f"2026-03-{1 + number // 1440 % 28:02}T{number // 60 % 24:02}:{number % 60:02}:07{digits}Z"


def _webhook(chance: random.Random, number: int) -> dict[str, Any]:
    """Return an event of a code host: optional objects, nulls that become objects, arrays of objects."""
    person = {"login": _word(chance), "id": chance.randrange(2**40), "site_admin": chance.random() < 0.1}
    made: dict[str, Any] = {
        "action": chance.choice(("opened", "closed", "edited")),
        "number": number,
        "sender": person,
        "assignee": None if number < NEW_AT else person,
        "milestone": None if number < NEW_AT or number % 3 else {"title": _word(chance), "due_on": _time(number)},
        "labels": [
            {"name": _word(chance), "color": f"{chance.randrange(2**24):06x}", "default": False}
            for _ in range(chance.randrange(3))
        ],
        "repository": {"full_name": f"{_word(chance)}/{_word(chance)}", "private": number % 2 == 0, "size": number * 7},
        "created_at": _time(number),
        "body": None if number % 5 == 0 else f'{_word(chance)}\n"{_word(chance)}" \\ \t\u2028{_word(chance)}',
    }
    if number % 4 == 0:
        made["pull_request"] = {
            "merged": number % 8 == 0,
            "head": {"sha": f"{chance.randrange(2**64):016x}", "ref": _word(chance)},
            "requested_reviewers": [person] if number % 16 == 0 else [],
        }
    if number >= NEW_AT:
        made["installation"] = {"id": number, "node_id": _word(chance)}
        made["sender"] = {**person, "user_view_type": "public"}
        made["labels"] = [{**label, "description": _word(chance)} for label in made["labels"]]
    if _rare(number):
        made["changes"] = {"title": {"from": _word(chance)}}
    return made


def _audit(chance: random.Random, number: int) -> dict[str, Any]:
    """Return an audit entry of a cloud: deep optional requests and responses, keys with dots, an id of two types."""
    verb = chance.choice(("create", "delete", "get", "list"))
    made: dict[str, Any] = {
        "_id": f"{number:024x}" if number % 3 else {"$oid": f"{number:024x}"},
        "eventTime": _time(number, ".123"),
        "verb": verb,
        "level": chance.choice(("Metadata", "Request")),
        "user": {"name": _word(chance), "groups": [_word(chance) for _ in range(chance.randrange(4))]},
        "annotations": {"policy.example/decision": "allow", "policy.example/reason": _word(chance)},
        "sourceIPs": [f"10.0.{chance.randrange(256)}.{chance.randrange(256)}"],
        "responseStatus": {"code": chance.choice((200, 201, 404))},
        "errorCode": None,
    }
    if verb == "create":
        made["requestObject"] = {
            "spec": {
                "replicas": chance.randrange(9),
                "template": {"labels": {"app.kubernetes.example/name": _word(chance)}, "limits": None},
            }
        }
    if number >= NEW_AT:
        made["errorCode"] = chance.choice((None, "AccessDenied", "Throttled"))
        made["annotations"]["policy.example/version"] = "v2"
        made["responseStatus"]["details"] = {"causes": [{"field": "spec.replicas", "message": _word(chance)}]}
        if verb == "create":
            made["requestObject"]["spec"]["template"]["limits"] = {"cpu": "500m", "memory.max": number}
    if _rare(number):
        made["tlsDetails"] = {"cipher.suite": _word(chance), "version": 1.3}
    return made


def _payment(chance: random.Random, number: int) -> dict[str, Any]:
    """Return an event of a payment: amounts as numbers and texts, dictionaries, fields that are an id or the object."""
    amount = chance.randrange(10**7)
    customer = f"cus_{chance.randrange(10**9)}"
    made: dict[str, Any] = {
        "id": f"evt_{number}",
        "created": 1_770_000_000 + number,
        "livemode": number % 2 == 0,
        "amount": amount if number % 10 else f"{amount / 100:.2f}",
        "currency": chance.choice(("eur", "usd", "jpy")),
        "customer": customer if number % 4 else {"id": customer, "email": None, "balance": -amount},
        "metadata": {f"order_{_word(chance)}": str(number), "channel": _word(chance)},
        "fee": None,
        "refunds": [],
        "rate": 1 if _is_whole(number) else round(chance.random(), 9),
        "big": 2**63 + number,
    }
    if number >= NEW_AT:
        made["fee"] = chance.choice((None, {"amount": amount // 100, "type": "application"}))
        made["refunds"] = [{"id": f"re_{number}", "amount": amount, "reason": None}] if number % 3 == 0 else []
        made["payment_method_details"] = {"card": {"brand": _word(chance), "last4": f"{number % 10000:04}"}}
    if _rare(number):
        made["dispute"] = {"evidence": {"due_by": 1_770_000_000 + number}}
        made["metadata"]["gift.note"] = _word(chance)
    return made


def _change(chance: random.Random, number: int) -> dict[str, Any]:
    """Return a change of a database: `before` is null until the first update, and columns are added."""
    row = {"id": number, "name": _word(chance), "price": f"{chance.randrange(10**6)}.{number % 100:02}", "note": None}
    if number >= NEW_AT:
        row |= {"discount": chance.random() < 0.2, "note": _word(chance)}
    op = "c" if number < NEW_AT else chance.choice("cud")
    made: dict[str, Any] = {
        "before": None if op == "c" else {**row, "name": _word(chance)},
        "after": None if op == "d" else row,
        "op": op,
        "ts_ms": 1_770_000_000_000 + number,
        "source": {"db": "shop", "table": "item", "lsn": 10**12 + number, "snapshot": "false", "txId": None},
        "transaction": None,
    }
    if number >= NEW_AT:
        made["source"]["txId"] = number
        made["ts_ns"] = 1_770_000_000_000_000_000 + number
    if _rare(number):
        made["transaction"] = {"id": f"{number}:1", "total_order": 1, "data_collection_order": 1}
    return made


def _telemetry(chance: random.Random, number: int) -> dict[str, Any]:
    """Return a measurement: whole numbers that get fractions, nanoseconds, dictionaries of tags, large arrays."""
    made: dict[str, Any] = {
        "device": f"dev-{chance.randrange(50)}",
        "at": _time(number, f".{number:09}"),
        "seq": number,
        "received": _time(number, ".123" if number < NEW_AT else f".{number:09}"),
        "temperature": chance.randrange(-20, 40) if _is_whole(number) else round(chance.uniform(-20, 40), 3),
        "tags": {"site": _word(chance), f"rack{chance.randrange(5)}": str(number)},
        "samples": [chance.randrange(1000) for _ in range(200 if number % 50 == 0 else 4)],
        "matrix": [[0.5, number / 4], []],
        "fault": False,
        "gps": None
        if number < NEW_AT
        else {"lat": round(chance.uniform(-90, 90), 6), "lon": chance.uniform(-180, 180)},
        "alarms": [] if number < NEW_AT else [{"code": number, "since": _time(number)}],
    }
    if number >= NEW_AT:
        made["firmware"] = {"version": "2.1.0", "build": number}
        made["tags"]["zone.id"] = "z1"
    if _rare(number):
        made["calibration"] = [1.5, 2, 2.25]
    return made


def _product(chance: random.Random, number: int) -> dict[str, Any]:
    """Return an entry of a catalogue: variants, names by language, values of several types, lists that fill up."""
    made: dict[str, Any] = {
        "sku": f"SKU-{number:06}",
        "name": {"en": _word(chance), "de": _word(chance), **({"ja": "東京"} if number % 7 == 0 else {})},
        "price": round(chance.uniform(1, 999), 2),
        "stock": chance.randrange(500),
        "attributes": [
            {"key": "size", "value": chance.choice((42, "XL", True, 9.5, None))},
            {"key": "color", "value": _word(chance)},
        ],
        "variants": [
            {"id": f"{number}-{n}", "options": {"size": n, "colour": _word(chance)}, "images": []}
            for n in range(chance.randrange(3))
        ],
        "related": [],
        "dimensions": {},
        "updated": f"2026-03-{1 + number % 28:02}",
    }
    if number >= NEW_AT:
        made["related"] = [f"SKU-{chance.randrange(number):06}"]
        made["dimensions"] = {"w": number % 90, "h": 1.5}
        made["name"]["fr"] = "œuvre"
        for variant in made["variants"]:
            variant["images"] = [{"url": f"https://img.example/{number}", "width": 640}]
            variant["barcode"] = f"{number:013}"
    if _rare(number):
        made["recall"] = {"since": _time(number), "reason": _word(chance)}
    return made


def _log_line(chance: random.Random, number: int) -> dict[str, Any]:
    """Return a line of a log: the message is a text or an object, and anything may be beside it."""
    made: dict[str, Any] = {
        "ts": _time(number, f".{number % 1000:03}"),
        "level": chance.choice(("info", "warn", "error")),
        "msg": _word(chance) if number % 4 else {"text": _word(chance), "args": [number, None, _word(chance)]},
        "logger": f"app.{_word(chance)}",
        "duration_ms": number % 100 if _is_whole(number) else number / 8,
        "http": {"status": chance.choice((200, 500)), "path": f"/{_word(chance)}?q={number}"} if number % 2 else None,
        "error": None,
    }
    if number >= NEW_AT:
        made["error"] = chance.choice((None, {"kind": "Timeout", "stack": [f"at {_word(chance)}:{number}"]}))
        made["trace.id"] = f"{chance.randrange(2**64):016x}"
        if made["http"]:
            made["http"]["user.agent"] = _word(chance)
    if _rare(number):
        made["context"] = [{"feature": _word(chance), "flags": {"beta": True}}]
    if number % 97 == 0:
        made["duration_ms"] = "slow"
    return made


SHAPES: Final[Mapping[str, Make]] = MappingProxyType(
    {
        "webhooks": _webhook,
        "audit": _audit,
        "payments": _payment,
        "changes": _change,
        "telemetry": _telemetry,
        "catalogue": _product,
        "logs": _log_line,
    }
)
"""What makes a document of each shape from a source of chance and its number."""
