"""What a schema's text means, and which texts are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batcher.formats.avro.plan import MAX_STEPS, plan
from batcher.formats.avro.schema import MAX_LEVELS, AvroSchemaBroken, parse
from batcher.formats.avro.types import (
    ArrayType,
    EnumType,
    FieldType,
    FixedType,
    LogicalType,
    PrimitiveType,
    RecordType,
    RecursiveType,
    UnionType,
)

INT, STRING, NULL = PrimitiveType("int"), PrimitiveType("string"), PrimitiveType("null")


def record(*fields: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields], **more}


def test_names_aliases_defaults_and_docs_are_kept() -> None:
    schema = {
        "type": "record",
        "name": "Order",
        "namespace": "shop",
        "aliases": ["Purchase", "old.Order"],
        "doc": "what was bought",
        "fields": [
            {"name": "id", "type": "int", "default": 7, "aliases": ["number"], "doc": "its number"},
            {"name": "note", "type": ["null", "string"], "default": None},
            {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["A", "B"], "default": "B"}},
            {"name": "hash", "type": {"type": "fixed", "name": "other.Hash", "size": 4}},
        ],
    }
    parsed = parse(json.dumps(schema))
    state = EnumType("shop.State", ("A", "B"), "B")
    digest = FixedType("other.Hash", 4)
    assert parsed.root == RecordType(
        "shop.Order",
        (
            FieldType("id", INT, "7", ("number",), "its number"),
            FieldType("note", UnionType((NULL, STRING)), "null"),
            FieldType("state", state),
            FieldType("hash", digest),
        ),
        ("shop.Purchase", "old.Order"),
        "what was bought",
    )
    assert parsed.named == {"shop.Order": parsed.root, "shop.State": state, "other.Hash": digest}


@pytest.mark.parametrize(
    ("name", "namespace", "meant"),
    [("B", None, "a.B"), ("B", "", "B"), ("B", "c.d", "c.d.B"), ("c.B", "ignored", "c.B")],
)
def test_a_name_without_a_dot_is_in_its_own_namespace_or_in_that_around_it(
    name: str, namespace: str | None, meant: str
) -> None:
    inside: dict[str, Any] = {"type": "fixed", "name": name, "size": 1}
    if namespace is not None:
        inside["namespace"] = namespace
    assert meant in parse(json.dumps(record(("x", inside), namespace="a"))).named


def test_a_type_is_found_by_its_name_in_the_namespace_then_without_one() -> None:
    fixed = {"type": "fixed", "name": "F", "namespace": "", "size": 1}
    parsed = parse(json.dumps(record(("x", fixed), ("y", "F"), namespace="a")))
    assert isinstance(parsed.root, RecordType)
    assert parsed.root.fields[1].type == FixedType("F", 1)


def test_types_of_other_schemas_are_found_by_name() -> None:
    references = {
        "geo": json.dumps(record(("lat", "double"), name="Geo", namespace="g")),
        "place": json.dumps(record(("at", "g.Geo"), name="Place", namespace="p")),
    }
    parsed = parse(json.dumps(record(("place", "p.Place"), ("at", ["null", "g.Geo"]))), references)
    assert isinstance(parsed.root, RecordType)
    assert parsed.root.fields[0].type == parsed.named["p.Place"]
    with pytest.raises(AvroSchemaBroken, match=r"^the schema geo that it refers to is not JSON: "):
        parse('"int"', {"geo": "{"})


def test_a_schema_may_bring_along_what_it_refers_to() -> None:
    geo = record(("lat", "double"), name="Geo")
    assert "Geo" in parse(json.dumps(record(("at", geo))), {"geo": json.dumps(geo)}).named
    with pytest.raises(AvroSchemaBroken, match=r"^field at: the type Geo is defined twice$"):
        parse(json.dumps(record(("at", geo))), {"geo": json.dumps(record(("lat", "float"), name="Geo"))})


@pytest.mark.parametrize("text", ["int", '"int"', '{"type": "int"}', '{"type": {"type": "int"}}', " int\n"])
def test_a_primitive_type_is_written_in_any_of_these_ways(text: str) -> None:
    assert parse(text).root == INT


@pytest.mark.parametrize(
    "declared",
    [
        {"type": "int", "logicalType": "unheard-of"},
        {"type": "int", "logicalType": "timestamp-millis"},
        {"type": "string", "logicalType": "date"},
        {"type": "int", "logicalType": 5},
        {"type": "string", "logicalType": "decimal", "precision": 4},
        {"type": "bytes", "logicalType": "decimal"},
        {"type": "bytes", "logicalType": "decimal", "precision": 0},
        {"type": "bytes", "logicalType": "decimal", "precision": True},
        {"type": "bytes", "logicalType": "decimal", "precision": "4"},
        {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 5},
        {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": -1},
        {"type": "bytes", "logicalType": "decimal", "precision": 77},
        {"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 5},
        {"type": "fixed", "name": "F", "size": 0, "logicalType": "decimal", "precision": 1},
        {"type": "fixed", "name": "F", "size": 15, "logicalType": "uuid"},
        {"type": "fixed", "name": "F", "size": 16, "logicalType": "duration"},
        {"type": "bytes", "logicalType": "uuid"},
    ],
)
def test_a_logical_type_that_is_unknown_or_does_not_fit_is_its_base_type(declared: dict[str, Any]) -> None:
    assert not isinstance(parse(json.dumps(declared)).root, LogicalType)


def test_the_longest_decimal_of_a_fixed_has_all_numbers_of_its_digits() -> None:
    for size, digits in ((1, 2), (2, 4), (3, 6), (4, 9), (8, 18), (16, 38)):
        assert 10**digits <= 2 ** (8 * size - 1) < 10 ** (digits + 1)
        for precision in (digits, digits + 1):
            declared = {"type": "fixed", "name": "F", "size": size, "logicalType": "decimal", "precision": precision}
            assert isinstance(parse(json.dumps(declared)).root, LogicalType) == (precision == digits)


def test_a_record_inside_itself_is_named_there() -> None:
    parsed = parse(json.dumps(record(("next", ["null", "R"]), ("others", {"type": "array", "items": "R"}))))
    assert isinstance(parsed.root, RecordType)
    assert [field.type for field in parsed.root.fields] == [
        UnionType((NULL, RecursiveType("R"))),
        ArrayType(RecursiveType("R")),
    ]


BROKEN: list[tuple[Any, str]] = [
    (5, "the schema: a type is a name, an object or a list"),
    ({}, "the schema: its type is missing"),
    ("moon", "the schema: there is no type moon"),
    ([], "the schema: a union has no types"),
    (["int", ["null"]], "the schema: a union has a union as its type"),
    (["int", {"type": "int", "logicalType": "date"}], "the schema: a union has int twice"),
    ([{"type": "map", "values": "int"}, {"type": "map", "values": "long"}], "the schema: a union has map twice"),
    ({"type": "array"}, "the schema: the type of its items is missing"),
    ({"type": "map"}, "the schema: the type of its values is missing"),
    ({"type": "record", "fields": []}, "the schema: the name of its record is missing or no text"),
    ({"type": "record", "name": "R"}, "the schema: the record R has no list of fields"),
    ({"type": "record", "name": "int", "fields": []}, "the schema: the name int is taken"),
    ({"type": "record", "name": "R", "fields": [{"type": "int"}]}, "the schema: a field of the record R has no name"),
    ({"type": "record", "name": "R", "fields": [{"name": "x"}]}, "field x: its type is missing"),
    (record(("x", "int"), ("x", "int")), "the schema: the record R has the field x twice"),
    (record(("x", record(("y", "moon"), name="S"))), "field x.y: there is no type moon"),
    (record(("x", {"type": "array", "items": "moon"})), "field x[]: there is no type moon"),
    (record(("x", record())), "field x: the name R is taken"),
    (record(("x", "R")), "field x: R holds itself without an end"),
    (record(("x", record(("y", "R"), name="S"))), "field x.y: R holds itself without an end"),
    (record(("x", "int"), aliases="S"), "the schema: its aliases are no list of names"),
    ({"type": "enum", "name": "E", "symbols": []}, "the schema: the enum E has no symbols, or one of them twice"),
    (
        {"type": "enum", "name": "E", "symbols": ["A", "A"]},
        "the schema: the enum E has no symbols, or one of them twice",
    ),
    ({"type": "enum", "name": "E", "symbols": ["A", 1]}, "the schema: its symbols are no list of names"),
    (
        {"type": "enum", "name": "E", "symbols": ["A"], "default": "B"},
        "the schema: the default of the enum E is not one of its symbols",
    ),
    ({"type": "fixed", "name": "F", "size": -1}, "the schema: the size of F is not a number of bytes"),
    ({"type": "fixed", "name": "F", "size": True}, "the schema: the size of F is not a number of bytes"),
    ({"type": "fixed", "name": "F", "size": 2**31}, "the schema: the size of F is not a number of bytes"),
    ({"type": "fixed", "name": "F\n", "size": -1}, "the schema: the size of F? is not a number of bytes"),
]


@pytest.mark.parametrize(("declared", "message"), BROKEN)
def test_a_broken_schema_is_named_with_its_field(declared: Any, message: str) -> None:
    with pytest.raises(AvroSchemaBroken) as raised:
        parse(json.dumps(declared))
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "text", ["", "{", "moon", "[" * 100_000, '{"type": "fixed", "name": "F", "size": ' + "9" * 5000]
)
def test_a_text_that_is_not_json_is_a_broken_schema(text: str) -> None:
    with pytest.raises(AvroSchemaBroken, match=r"^the schema is not JSON: [^\n]+$"):
        parse(text)


def test_nesting_has_a_bound() -> None:
    def nested(levels: int) -> Any:
        return {"type": "array", "items": nested(levels - 1)} if levels else "int"

    plan(parse(json.dumps(nested(MAX_LEVELS - 1))))
    for levels in (MAX_LEVELS + 1, 200):
        with pytest.raises(AvroSchemaBroken, match=f"nested deeper than {MAX_LEVELS} levels$"):
            parse(json.dumps(nested(levels)))


def test_a_nest_of_names_that_stands_for_a_billion_types_is_refused_at_once() -> None:
    references = {"L0": json.dumps(record(("x", "int"), name="L0"))}
    for level in range(1, 31):
        fields = [(side, f"L{level - 1}") for side in "ab"]
        references[f"L{level}"] = json.dumps(record(*fields, name=f"L{level}"))
    # Once more, in a schema that brings all of it along.
    with pytest.raises(AvroSchemaBroken, match=f"the schema has more than {MAX_STEPS:,} types$"):
        plan(parse('"L30"', references | {f"again {name}": text for name, text in references.items()}))


def test_a_nest_of_names_that_is_too_deep_is_refused() -> None:
    references = {"L0": json.dumps(record(("x", "int"), name="L0"))}
    for level in range(1, 100):
        references[f"L{level}"] = json.dumps(record(("x", f"L{level - 1}"), name=f"L{level}"))
    with pytest.raises(AvroSchemaBroken, match=f"the schema has more than {MAX_LEVELS} levels$"):
        plan(parse('"L99"', references))
