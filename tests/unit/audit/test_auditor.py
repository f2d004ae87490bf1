"""Every record of a window is in one of the places where it may be, or it is named: against sets of numbers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.audit.auditor import Account, Auditor, examine
from batcher.audit.ranges import NONE, Span
from batcher.audit.report import LINES, AuditReport, facts, lines
from batcher.audit.scope import Scope
from batcher.protocols import COPIES
from batcher.records import Partition, Range

EVENTS_0 = Partition("events", 0)
END = 30

offsets = st.integers(0, END - 1)
logs = st.dictionaries(offsets, st.booleans())
"""For each offset that has a record: whether it has no value."""
rows = st.lists(offsets)
"""The offset of each row of a target."""


class Memory:
    """Be a log and a target; count how often the log is read."""

    def __init__(self, log: Mapping[int, bool], rows: list[int]) -> None:
        self.log = log
        self.rows = rows
        self.read: list[Range] = []

    def offsets(self, asked: Range) -> tuple[pa.Int64Array, pa.BooleanArray]:
        self.read.append(asked)
        found = sorted(offset for offset in self.log if asked.first <= offset <= asked.last)
        return pa.array(found, pa.int64()), pa.array([self.log[offset] for offset in found], pa.bool_())

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        assert partition == EVENTS_0
        found = Counter(offset for offset in self.rows if first <= offset <= last)
        return pa.table([sorted(found), [found[offset] for offset in sorted(found)]], schema=COPIES)


def scope(first: int = 0, next_offset: int = END, **changes: Any) -> Scope:
    facts = {"log_first": first, "log_next": next_offset, "committed": next_offset, **changes}
    return Scope(EVENTS_0, first, next_offset, **facts)


def account(
    log: Mapping[int, bool], rows: list[int], letters: list[int], *, window: int = 1000, skips: bool = True
) -> Account:
    memory = Memory(log, rows)
    columns = {EVENTS_0: pa.array(sorted(set(letters)), pa.int64())}
    return Auditor(memory, memory, columns, skips_tombstones=skips, window=window, kept=100).account(scope())


@settings(deadline=None)
@given(logs, rows, rows, st.booleans(), st.integers(1, END + 1))
def test_the_account_is_what_sets_of_numbers_say_whatever_the_windows(
    log: dict[int, bool], rows: list[int], letters: list[int], skips: bool, window: int
) -> None:
    found = account(log, rows, letters, window=window, skips=skips)

    held, refused = set(rows), set(letters)
    # Windows that the target has whole are not read: what it has there counts as read.
    whole = [range(first, min(first + window, END)) for first in range(0, END, window)]
    unread = {offset for one in whole if held.issuperset(one) for offset in one}
    log = log | dict.fromkeys(unread - log.keys(), False)
    tombstones = {offset for offset, null in log.items() if null and skips} - held - refused
    missing = log.keys() - held - refused - tombstones
    duplicated = {offset for offset, count in Counter(rows).items() if count > 1}
    assert (found.records, found.inferred) == (len(log), len(unread))
    assert (found.written, found.only_written) == (len(log.keys() & held), len(held - log.keys()))
    assert (found.dead_lettered, found.tombstones) == (len((log.keys() - held) & refused), len(tombstones))
    assert found.filtered == 0
    assert found.records == found.written + found.dead_lettered + found.tombstones + found.missing.offsets
    assert found.copies_too_many == len(rows) - len(held)
    assert found.gaps == END - len(log)
    read = [one for one in range(0, END, window) if not held.issuperset(range(one, min(one + window, END)))]
    assert found.only_dead_letters == len(
        {offset for one in read for offset in range(one, min(one + window, END))} & refused - log.keys() - held
    )
    for kept, expected in ((found.missing, missing), (found.duplicated, duplicated), (found.both, held & refused)):
        named = [o for span in kept.spans for o in range(span.first, span.last + 1) if o in log.keys() | held]
        assert named == sorted(expected)
        assert (kept.offsets, kept.ranges) == (len(expected), len(kept.spans))
    assert found.adds_up == (not missing and not duplicated)


def test_a_window_that_the_target_has_whole_is_not_read_from_the_log() -> None:
    memory = Memory(dict.fromkeys(range(END), False), [*range(10), *range(10, 19), *range(20, END)])
    found = Auditor(memory, memory, {}, window=10).account(scope())

    assert memory.read == [Range(EVENTS_0, 10, 19)]
    assert (found.inferred, found.records, found.missing.offsets) == (20, 30, 1)


def test_duplicates_in_a_window_that_is_not_read_are_found() -> None:
    found = account({}, [*range(END), 4, 4], [])
    assert (found.duplicated.spans, found.copies_too_many, found.adds_up) == (((4, 4, 1),), 2, False)


def test_a_window_without_anything_adds_up() -> None:
    found = examine(Range(EVENTS_0, 0, 9), COPIES.empty_table(), lambda _: (NONE, pa.array([], pa.bool_())), NONE)
    assert (found.records, len(found.missing), len(found.among)) == (0, 0, 0)


def test_a_tombstone_that_should_have_been_refused_is_missing() -> None:
    assert account({3: True}, [], [], skips=True).adds_up
    assert account({3: True}, [], [], skips=False).missing.spans == ((3, 3, 1),)


@pytest.mark.parametrize(
    "odd",
    [scope(committed=5, expired=5), scope(committed=40, cut=10)],
    ids=["expired before it was read", "the log was cut"],
)
def test_a_log_that_does_not_have_what_was_committed_does_not_add_up(odd: Scope) -> None:
    memory = Memory({}, [])
    found = Auditor(memory, memory, {}).account(odd)
    report = AuditReport("target", "group", (found,))
    assert (report.exit_code, facts(report)["exit"]) == (1, 1)
    text = "\n".join(lines(report))
    assert "expired unread: events[0]" in text or "log cut: events[0]" in text
    assert "1 partitions whose log does not have what was committed" in text


def test_people_are_shown_the_first_runs_and_how_many_more_there_are() -> None:
    log = dict.fromkeys(range(END * 4), False)
    memory = Memory(log, list(range(0, END * 4, 2)))
    found = Auditor(memory, memory, {}, kept=50).account(scope(0, END * 4))
    text = list(lines(AuditReport("target", "group", (found,))))

    shown = [line for line in text if line.startswith("missing: events[0] ")]
    assert shown[0] == "missing: events[0] 1-1 (1)"
    assert len(shown) == LINES
    assert "missing: events[0], 40 more ranges" in text
    assert text[-1] == "not complete: of 120 records 60 missing, 0 duplicated"
    (one,) = facts(AuditReport("target", "group", (found,)))["partitions"]
    assert (one["missing"]["ranges"], len(one["missing"]["first_ranges"])) == (60, 50)


def test_the_target_is_asked_through_what_may_ask_again() -> None:
    memory, asked = Memory({}, []), []

    def attempt(ask: Any, *arguments: Any) -> Any:
        asked.append(arguments)
        return ask(*arguments)

    Auditor(memory, memory, {}, window=20, attempt=attempt).account(scope())
    assert asked == [(EVENTS_0, 0, 19), (EVENTS_0, 20, 29)]


def beyond(**changes: Any) -> tuple[AuditReport, str]:
    """Return the report of a partition that adds up but for some changes, and its lines."""
    found = dataclasses.replace(account(dict.fromkeys(range(END), False), list(range(END)), []), **changes)
    report = AuditReport("target", "group", (found,))
    return report, "\n".join(lines(report))


def test_a_dead_letter_above_the_logs_end_is_a_fault_of_ours_and_says_so() -> None:
    report, text = beyond(letters_beyond=Span(31, 60, 30))
    assert report.exit_code == 1
    assert "beyond the log: events[0] ends at 30, but 30 dead letters are of offsets 31-60" in text
    assert "a fault of batcher and not of the topic" in text
    assert facts(report)["partitions"][0]["dead_letters_beyond"] == [31, 60, 30]


def test_rows_above_the_logs_end_are_of_another_log() -> None:
    report, text = beyond(beyond=99)
    assert report.exit_code == 1
    assert "events[0] ends at 30, but the target holds rows up to offset 99: the topic was cut or made anew" in text
    assert "1 partitions whose log does not have what was committed, stored or refused" in text


def test_dead_letters_above_the_logs_end_beside_such_rows_are_of_another_log_too() -> None:
    _, text = beyond(beyond=99, letters_beyond=Span(31, 60, 30))
    assert "30 dead letters are of offsets 31-60: the topic was cut or made anew" in text
    assert "fault of batcher" not in text


def test_rows_behind_what_was_looked_at_but_within_the_log_are_no_fault() -> None:
    report, text = beyond(scope=scope(log_next=200), beyond=99)
    assert report.exit_code == 0
    assert "not looked at: events[0], what the target holds from 30 to 99" in text


def test_dead_letters_of_offsets_that_the_log_does_not_have_are_counted() -> None:
    found = account({1: False, 5: False}, [1], [3, 5])
    assert (found.only_dead_letters, found.dead_lettered, found.adds_up) == (1, 1, True)
    assert "only a dead letter: events[0], 1 offsets" in "\n".join(lines(AuditReport("target", "group", (found,))))


def test_the_dead_letters_from_an_offset_on_are_found() -> None:
    auditor = Auditor(Memory({}, []), Memory({}, []), {EVENTS_0: pa.array([3, 30, 35], pa.int64())})
    assert auditor.letters_from(EVENTS_0, 30) == Span(30, 35, 2)
    assert auditor.letters_from(EVENTS_0, 36) is None
    assert auditor.letters_from(Partition("events", 1), 0) is None


def test_nothing_to_compare_is_not_called_complete() -> None:
    found = account({}, [], [])
    assert list(lines(AuditReport("target", "group", (found,))))[-1].startswith("nothing to compare with target: ")
