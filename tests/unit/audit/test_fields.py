"""What the target does not store of the records is named, exactly where they are few, else from some of them."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from batcher.audit.auditor import Account, Kept
from batcher.audit.fields import EACH, WHOLE, Fields, Survey, chosen
from batcher.audit.report import AuditReport, facts, lines
from batcher.audit.scope import Scope
from batcher.formats.json.format import JsonFormat
from batcher.records import Partition, Range, Records
from batcher.testing.values import make_records

A, B = Partition("a", 0), Partition("b", 0)
IDS = pa.schema([("id", pa.int64()), ("city", pa.string())])


class Log:
    """Have a record of each offset; those from 500 on have a field more."""

    def records(self, asked: Range) -> Iterator[Records]:
        late = ',"late":{"x":1}'
        texts = [f'{{"id":{n}{late if n >= 500 else ""}}}' for n in range(asked.first, asked.last + 1)]
        yield make_records(texts, partition=asked.partition, first_offset=asked.first)


def scope(partition: Partition, end: int) -> Scope:
    return Scope(partition, 0, end, 0, end, end)


def report(fields: Fields) -> AuditReport:
    nothing = Kept(0, 0, ())
    account = Account(scope(A, 2500), 2500, 0, 2500, 0, 0, 0, 0, 0, nothing, nothing, nothing)
    return AuditReport("out", "loaders", (account,), fields)


def test_a_field_that_no_column_takes_is_named_with_its_records_and_a_column_that_no_record_fills() -> None:
    survey = Survey(Log(), JsonFormat(), lambda _: IDS)
    survey.look(scope(A, 2500), 2500)
    assert survey.fields() == Fields(2500, {"late": 2000}, estimated=False, empty_columns=("city",))


def test_a_large_scope_is_looked_at_in_some_places_and_the_counts_say_that_they_are_estimates() -> None:
    survey = Survey(Log(), JsonFormat(), lambda _: IDS, places=10)
    survey.look(scope(A, 1_000_000), 1_000_000)
    found = survey.fields()
    assert (found.looked_at, found.estimated, list(found.unknown)) == (10 * EACH, True, ["late"])
    assert 850_000 <= found.unknown["late"] <= 1_000_000


def test_places_are_all_over_the_scope_and_the_last_one_is_its_end() -> None:
    ranges = chosen(scope(A, WHOLE * 100), 5)
    assert [one.first for one in ranges] == [0, 249_984, 499_968, 749_952, 999_936]
    assert ranges[-1].last == WHOLE * 100 - 1
    assert chosen(scope(A, WHOLE), 5) == [Range(A, 0, WHOLE - 1)]
    assert chosen(scope(A, 0), 5) == []


def test_each_topic_is_compared_with_its_own_columns() -> None:
    schemas = {"a": IDS, "b": pa.schema([("id", pa.int64()), ("late", pa.struct([("x", pa.int64())]))])}
    survey = Survey(Log(), JsonFormat(), schemas.get, by_topic=True)
    for partition in (A, B, Partition("nothing-loaded", 0)):
        survey.look(scope(partition, 1000), 1000)
    assert survey.fields() == Fields(2000, {"a: late": 500}, estimated=False, empty_columns=("a: city",))


def test_the_verdict_says_complete_but_which_fields_are_not_stored() -> None:
    found = report(Fields(2500, {"late": 2000}, empty_columns=("city",)))
    said = list(lines(found))
    assert "not stored: field late of 2,000 records: no column takes it" in said
    assert "without a value: column city: no record has one" in said
    assert said[-1].startswith("complete, but fields of the records are not stored: late: ")
    assert found.exit_code == 0
    assert facts(found)["unknown_fields"] == {"late": 2000}
    assert facts(found)["columns_without_value"] == ["city"]


def test_an_estimate_is_said_to_be_one() -> None:
    found = report(Fields(640, {"late": 900_000}, estimated=True, empty_columns=("city",)))
    said = list(lines(found))
    assert "not stored: field late of about 900,000 records: no column takes it" in said
    assert "without a value: column city: of 640 records looked into none has one" in said
    assert facts(found)["unknown_fields_estimated"] is True
