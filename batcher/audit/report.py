"""What was found, as one object for programs and as a table with one line for each run for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from batcher.audit.auditor import Account, Kept
from batcher.audit.fields import Fields
from batcher.audit.ranges import Span

LINES: Final = 20
"""Runs of one kind that are shown to people for each partition; programs get all that are kept."""

NAMED: Final = 5
"""Fields that the verdict names."""

COLUMNS: Final = (
    "partition",
    "from",
    "to",
    "records",
    "in target",
    "dead letters",
    "tombstones",
    "filtered",
    "gaps",
    "missing",
    "duplicated",
    "behind",
)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Hold the accounts of all partitions that were checked, and what they are about."""

    target: str
    group: str
    accounts: tuple[Account, ...]
    fields: Fields = field(default_factory=Fields)

    @property
    def adds_up(self) -> bool:
        """Return whether every partition adds up."""
        return all(one.adds_up for one in self.accounts)

    @property
    def exit_code(self) -> int:
        """Return 0 when everything adds up, else 1."""
        return 0 if self.adds_up else 1


def facts(report: AuditReport) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "target": report.target,
        "group": report.group,
        "adds_up": report.adds_up,
        "records": sum(one.records for one in report.accounts),
        "missing": sum(one.missing.offsets for one in report.accounts),
        "duplicated": sum(one.duplicated.offsets for one in report.accounts),
        "unknown_fields": dict(report.fields.unknown),
        "unknown_fields_estimated": report.fields.estimated,
        "columns_without_value": list(report.fields.empty_columns),
        "records_looked_into": report.fields.looked_at,
        "partitions": [_facts(one) for one in report.accounts],
        "exit": report.exit_code,
    }


def _facts(account: Account) -> dict[str, Any]:
    scope = account.scope
    return {
        "topic": scope.partition.topic,
        "partition": scope.partition.number,
        "from": scope.first,
        "to": scope.next_offset,
        "committed": scope.committed,
        "log_from": scope.log_first,
        "log_to": scope.log_next,
        "behind": scope.behind,
        "records": account.records,
        "records_not_read": account.inferred,
        "written": account.written,
        "dead_lettered": account.dead_lettered,
        "tombstones": account.tombstones,
        "filtered": account.filtered,
        "gaps": account.gaps,
        "missing": _kept(account.missing),
        "duplicated": {**_kept(account.duplicated), "copies_too_many": account.copies_too_many},
        "both": _kept(account.both),
        "only_in_target": account.only_written,
        "only_dead_letters": account.only_dead_letters,
        "dead_letters_beyond": account.letters_beyond and list(account.letters_beyond),
        "target_beyond": account.beyond,
        "expired_unread": scope.expired,
        "cut": scope.cut,
        "adds_up": account.adds_up,
    }


def _kept(kept: Kept) -> dict[str, Any]:
    return {"offsets": kept.offsets, "ranges": kept.ranges, "first_ranges": [list(span) for span in kept.spans]}


def lines(report: AuditReport) -> Iterator[str]:
    """Yield the table, a line for each run that is not as it should be, and the verdict."""
    yield from _table([_cells(one) for one in report.accounts])
    for one in report.accounts:
        yield from _findings(one)
    yield from _unstored(report.fields)
    yield _verdict(report)


def _cells(account: Account) -> tuple[str, ...]:
    scope = account.scope
    numbers = (
        scope.first,
        scope.next_offset,
        account.records,
        account.written,
        account.dead_lettered,
        account.tombstones,
        account.filtered,
        account.gaps,
        account.missing.offsets,
        account.duplicated.offsets,
    )
    behind = "no commit" if scope.behind is None else f"{scope.behind:,}"
    # Offsets are to be copied, counts are to be read.
    return (str(scope.partition), *map(str, numbers[:2]), *(f"{number:,}" for number in numbers[2:]), behind)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for row in (COLUMNS, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells])


def _findings(account: Account) -> Iterator[str]:
    scope = account.scope
    yield from _runs("missing", account, account.missing)
    yield from _runs("duplicated", account, account.duplicated)
    yield from _runs("in the target and a dead letter", account, account.both)
    if scope.expired:
        yield f"expired unread: {scope.partition} {scope.committed}-{scope.log_first - 1} ({scope.expired:,} offsets)"
    if scope.cut:
        yield (
            f"log cut: {scope.partition} ends at {scope.log_next}, but the group has read up to {scope.committed}: "
            "the topic was cut or made anew"
        )
    if account.only_written:
        yield f"only in the target: {scope.partition}, {account.only_written:,} offsets that the log has no more"
    if account.only_dead_letters:
        yield (
            f"only a dead letter: {scope.partition}, {account.only_dead_letters:,} offsets at which the log has no "
            "record, or none any more"
        )
    if account.letters_beyond is not None:
        yield _letters_beyond(account, account.letters_beyond)
    if account.rows_beyond:
        cause = "" if scope.cut else " and loaded from its beginning, or another log is loaded into this target"
        yield (
            f"beyond the log: {scope.partition} ends at {scope.log_next}, but the target holds rows up to offset "
            f"{account.beyond}: the topic was cut or made anew{cause}"
        )
    elif account.beyond is not None:
        yield f"not looked at: {scope.partition}, what the target holds from {scope.next_offset} to {account.beyond}"


def _letters_beyond(account: Account, letters: Span) -> str:
    scope = account.scope
    cause = (
        "the topic was cut or made anew"
        if scope.cut or account.rows_beyond
        else "no record was ever there, which is a fault of batcher and not of the topic: please report it"
    )
    return (
        f"beyond the log: {scope.partition} ends at {scope.log_next}, but {letters.offsets:,} dead letters are of "
        f"offsets {letters.first}-{letters.last}: {cause}"
    )


def _unstored(fields: Fields) -> Iterator[str]:
    about = "about " if fields.estimated else ""
    for path, records in list(fields.unknown.items())[:LINES]:
        yield f"not stored: field {path} of {about}{records:,} records: no column takes it"
    if len(fields.unknown) > LINES:
        yield f"not stored: {len(fields.unknown) - LINES:,} more fields"
    among = f"of {fields.looked_at:,} records looked into none" if fields.estimated else "no record"
    for column in fields.empty_columns[:LINES]:
        yield f"without a value: column {column}: {among} has one"
    if len(fields.empty_columns) > LINES:
        yield f"without a value: {len(fields.empty_columns) - LINES:,} more columns"


def _runs(kind: str, account: Account, kept: Kept) -> Iterator[str]:
    for span in kept.spans[:LINES]:
        yield f"{kind}: {account.scope.partition} {span.first}-{span.last} ({span.offsets:,})"
    if kept.ranges > LINES:
        yield f"{kind}: {account.scope.partition}, {kept.ranges - LINES:,} more ranges"


def _verdict(report: AuditReport) -> str:
    records = sum(one.records for one in report.accounts)
    unknown = report.fields.unknown
    if report.adds_up and not records:
        return (
            f"nothing to compare with {report.target}: the log has no record in what group {report.group} has "
            "committed, within --from and --to"
        )
    if report.adds_up and unknown:
        more = f" and {len(unknown) - NAMED:,} more" if len(unknown) > NAMED else ""
        named = ", ".join(list(unknown)[:NAMED]) + more
        return (
            f"complete, but fields of the records are not stored: {named}: {records:,} records read, every one in "
            f"{report.target}, a dead letter or skipped by policy"
        )
    if report.adds_up:
        return f"complete: {records:,} records read, every one in {report.target}, a dead letter or skipped by policy"
    missing = sum(one.missing.offsets for one in report.accounts)
    duplicated = sum(one.duplicated.offsets for one in report.accounts)
    others = sum(1 for one in report.accounts if one.scope.expired or one.of_another_log)
    said = [f"{missing:,} missing", f"{duplicated:,} duplicated"]
    if others:
        said.append(f"{others:,} partitions whose log does not have what was committed, stored or refused")
    return f"not complete: of {records:,} records {', '.join(said)}"
