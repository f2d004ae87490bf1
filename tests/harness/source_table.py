"""A table of a database that changes, and the change events that Debezium writes about it (`formats.md`, PostgreSQL).

The table is the truth: what a target holds is compared with `rows`. Events come in the three forms in which Debezium's
converters write them. The shapes are those that a real Debezium 3.6 on PostgreSQL 15 wrote.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

Row = dict[str, Any]
Op = Literal["c", "r", "u", "d", "t", "m"]

UNAVAILABLE: Final = "__debezium_unavailable_value"

_DAY: Final = date(1970, 1, 1)
_START: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Event(NamedTuple):
    """Hold a change; both images are None for a truncate, a message and a tombstone (whose op is empty)."""

    op: Op | Literal[""]
    key: Row | None
    before: Row | None
    after: Row | None
    lsn: int
    refused: bool = False
    """No row can be made of it, or none is to be."""


class KeyPool:
    """Hold keys of which one is picked at random, in a time that does not grow with them."""

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._places: dict[int, int] = {}

    def add(self, key: int) -> None:
        if key not in self._places:
            self._places[key] = len(self._keys)
            self._keys.append(key)

    def remove(self, key: int) -> None:
        place = self._places.pop(key, None)
        if place is None:
            return
        last = self._keys.pop()
        if last != key:
            self._keys[place] = last
            self._places[last] = place

    def pick(self, by: random.Random) -> int | None:
        return by.choice(self._keys) if self._keys else None


@dataclass(slots=True)
class SourceTable:
    """Change at random, always in the same way for a seed.

    `full`: deletes and updates tell the whole old row (REPLICA IDENTITY FULL). Without it a value that is stored
    elsewhere and was not changed is not sent (TOAST): such events are refused, and `rows` has the row from before.
    """

    seed: int
    full: bool = False
    rows: dict[int, Row] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _there: KeyPool = field(default_factory=KeyPool)
    _gone_keys: KeyPool = field(default_factory=KeyPool)
    _lsn: int = 1_000_000
    _next: int = 1

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def snapshot(self, count: int) -> None:
        """Begin with rows that were there before anything was watched."""
        for _ in range(count):
            row = self._new()
            self._add("r", None, row)
            self._put(row)

    def change(self, count: int) -> None:
        """Change the table this many times."""
        kinds: list[tuple[Callable[[], None], int]] = [
            (self._insert, 30),
            (self._update, 40),
            (self._delete, 15),
            (self._rekey, 10),
            (self._insert_again, 5),
        ]
        for kind in self._random.choices([one for one, _ in kinds], [weight for _, weight in kinds], k=count):
            kind()

    def truncate(self) -> None:
        """Empty nothing, but write the event: by default it is refused, and the target keeps its rows."""
        self.events.append(Event("t", None, None, None, self._tick(), refused=True))

    def message(self) -> None:
        """Write a message into the log of the database."""
        self.events.append(Event("m", None, None, None, self._tick()))

    def toasted(self) -> None:
        """Update a row whose long text was not changed and is not sent."""
        row = self._any()
        if row is not None:
            after = {**row, "amount": self._amount(), "note": UNAVAILABLE}
            self.events.append(Event("u", {"id": row["id"]}, None, after, self._tick(), refused=True))

    def _insert(self) -> None:
        row = self._new()
        self._add("c", None, row)
        self._put(row)

    def _insert_again(self) -> None:
        """Insert a row under a key that a row had before it was deleted."""
        key = self._gone_keys.pick(self._random)
        if key is not None:
            row = {**self._new(), "id": key}
            self._add("c", None, row)
            self._put(row)

    def _update(self) -> None:
        row = self._any()
        if row is not None:
            after = {**self._new(), "id": row["id"]}
            self._add("u", row if self.full else None, after)
            self._put(after)

    def _delete(self) -> None:
        row = self._any()
        if row is not None:
            self._gone(row, self._tick())

    def _rekey(self) -> None:
        """Change the key of a row: a delete, a tombstone and an insert, all of one transaction."""
        row = self._any()
        if row is not None:
            lsn = self._tick()
            self._gone(row, lsn)
            after = {**row, "id": self._next}
            self._next += 1
            self.events.append(Event("c", {"id": after["id"]}, None, after, lsn))
            self._put(after)

    def _gone(self, row: Row, lsn: int) -> None:
        before = row if self.full else {name: value if name == "id" else None for name, value in row.items()}
        self.events.append(Event("d", {"id": row["id"]}, before, None, lsn))
        self.events.append(Event("", {"id": row["id"]}, None, None, lsn))
        del self.rows[row["id"]]
        self._there.remove(row["id"])
        self._gone_keys.add(row["id"])

    def _put(self, row: Row) -> None:
        self.rows[row["id"]] = row
        self._there.add(row["id"])
        self._gone_keys.remove(row["id"])

    def _add(self, op: Op, before: Row | None, after: Row) -> None:
        self.events.append(Event(op, {"id": after["id"]}, before, after, self._tick()))

    def _any(self) -> Row | None:
        key = self._there.pick(self._random)
        return None if key is None else self.rows[key]

    def _tick(self) -> int:
        self._lsn += self._random.randrange(1, 500)
        return self._lsn

    def _amount(self) -> Decimal:
        return Decimal(self._random.randrange(-(10**9), 10**9)).scaleb(-2)

    def _new(self) -> Row:
        number, self._next = self._next, self._next + 1
        pick = self._random
        moment = _START + timedelta(microseconds=pick.randrange(0, 2 * 10**15))
        return {
            "id": number,
            "customer": pick.choice(["Ann", "Zoë", "x" * 40, "1234", "2024-01-01"]),
            "amount": self._amount(),
            "day": _DAY + timedelta(days=pick.randrange(0, 40_000)),
            "made": moment,
            "seen": moment.replace(microsecond=moment.microsecond // 1000 * 1000),
            "zoned": moment,
            "paid": pick.random() < 0.5,
            "note": pick.choice([None, "", "long " * 20]),
        }


class Form(NamedTuple):
    """Write events: `key` and `value` return what the converters write."""

    key: Callable[[Event], bytes | None]
    value: Callable[[Event], bytes | None]


def bare_json() -> Form:
    """Return the form of JsonConverter without schemas."""
    return Form(
        lambda event: None if event.key is None else _json(event.key),
        lambda event: None if not event.op else _json(_envelope(event)),
    )


def embedded_json() -> Form:
    """Return the form of JsonConverter with a schema in each message."""
    key = {"type": "struct", "fields": [{"type": "int64", "optional": False, "field": "id"}], "name": "shop.orders.Key"}
    return Form(
        lambda event: None if event.key is None else _json({"schema": key, "payload": event.key}),
        lambda event: None if not event.op else _json({"schema": ENVELOPE, "payload": _envelope(event)}),
    )


def avro_value() -> Mapping[str, Any]:
    """Return the schema that AvroConverter registers for the envelope."""
    row = {
        "type": "record",
        "name": "Value",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "customer", "type": ["null", "string"]},
            {
                "name": "amount",
                "type": [
                    "null",
                    {
                        "type": "bytes",
                        "scale": 2,
                        "precision": 10,
                        "connect.version": 1,
                        "connect.parameters": {"scale": "2", "connect.decimal.precision": "10"},
                        "connect.name": "org.apache.kafka.connect.data.Decimal",
                        "logicalType": "decimal",
                    },
                ],
            },
            {"name": "day", "type": ["null", _connect("int", "io.debezium.time.Date")]},
            {"name": "made", "type": ["null", _connect("long", "io.debezium.time.MicroTimestamp")]},
            {"name": "seen", "type": ["null", _connect("long", "io.debezium.time.Timestamp")]},
            {"name": "zoned", "type": ["null", _connect("string", "io.debezium.time.ZonedTimestamp")]},
            {"name": "paid", "type": ["null", "boolean"]},
            {"name": "note", "type": ["null", "string"]},
        ],
        "connect.name": "shop.orders.Value",
    }
    source = [{"name": "version", "type": "string"}, {"name": "lsn", "type": ["null", "long"]}]
    return {
        "type": "record",
        "name": "Envelope",
        "namespace": "shop.orders",
        "fields": [
            {"name": "before", "type": ["null", row], "default": None},
            {"name": "after", "type": ["null", "Value"], "default": None},
            {"name": "source", "type": {"type": "record", "name": "Source", "fields": source}},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": None},
        ],
        "connect.name": "shop.orders.Envelope",
    }


def for_avro(event: Event) -> Row | None:
    """Return an event as a writer of Avro takes it; None for a tombstone."""
    if not event.op:
        return None

    def image(row: Row | None) -> Row | None:
        return None if row is None else {**_written(row), "amount": row["amount"]}

    return {
        "before": image(event.before),
        "after": image(event.after),
        "source": {"version": "3.6.1.Final", "lsn": event.lsn},
        "op": event.op,
        "ts_ms": 1_700_000_000_000,
    }


def _connect(kind: str, name: str) -> Mapping[str, Any]:
    return {"type": kind, "connect.version": 1, "connect.name": name}


def _envelope(event: Event) -> Row:
    source = {
        "version": "3.6.1.Final",
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": 1_700_000_000_000 + event.lsn // 1000,
        "snapshot": "true" if event.op == "r" else "false",
        "db": "shop",
        "sequence": f'[null,"{event.lsn}"]',
        "schema": "public",
        "table": "orders",
        "txId": 700 + event.lsn % 97,
        "lsn": event.lsn,
        "xmin": None,
    }
    return {
        "before": None if event.before is None else _written(event.before),
        "after": None if event.after is None else _written(event.after),
        "source": source,
        "transaction": None,
        "op": event.op,
        "ts_ms": 1_700_000_000_500,
        "ts_us": 1_700_000_000_500_123,
    }


def _written(row: Row) -> Row:
    """Return a row as the connector writes it with its defaults."""
    return {
        name: value if value is None or name not in _WRITTEN else _WRITTEN[name](value) for name, value in row.items()
    }


def _micros(moment: datetime) -> int:
    return (moment - _START) // timedelta(microseconds=1)


_WRITTEN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "amount": lambda amount: _octets(int(amount.scaleb(2))),
    "day": lambda day: (day - _DAY).days,
    "made": _micros,
    "seen": lambda moment: _micros(moment) // 1000,
    "zoned": lambda moment: moment.isoformat().replace("+00:00", "Z"),
}


def _octets(number: int) -> str:
    return base64.b64encode(number.to_bytes(max(1, (number.bit_length() + 8) // 8), "big", signed=True)).decode()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _field(name: str, kind: str, meaning: str | None = None, **parameters: str) -> Row:
    found: Row = {"type": kind, "optional": name != "id", "field": name}
    if meaning is not None:
        found |= {"name": meaning, "version": 1}
    return found | ({"parameters": parameters} if parameters else {})


_ROW: Final = [
    _field("id", "int64"),
    _field("customer", "string"),
    _field(
        "amount",
        "bytes",
        "org.apache.kafka.connect.data.Decimal",
        **{"scale": "2", "connect.decimal.precision": "10"},
    ),
    _field("day", "int32", "io.debezium.time.Date"),
    _field("made", "int64", "io.debezium.time.MicroTimestamp"),
    _field("seen", "int64", "io.debezium.time.Timestamp"),
    _field("zoned", "string", "io.debezium.time.ZonedTimestamp"),
    _field("paid", "boolean"),
    _field("note", "string"),
]
_IMAGE: Final = {"type": "struct", "fields": _ROW, "optional": True, "name": "shop.public.orders.Value"}
_SOURCE: Final = [_field(name, "string") for name in ("version", "connector", "name", "db", "table")]

ENVELOPE: Final[Row] = {
    "type": "struct",
    "fields": [
        {**_IMAGE, "field": "before"},
        {**_IMAGE, "field": "after"},
        {
            "type": "struct",
            "fields": [*_SOURCE, _field("lsn", "int64"), _field("ts_ms", "int64")],
            "optional": False,
            "name": "io.debezium.connector.postgresql.Source",
            "field": "source",
        },
        _field("op", "string"),
        _field("ts_ms", "int64"),
    ],
    "optional": False,
    "name": "shop.public.orders.Envelope",
    "version": 2,
}
