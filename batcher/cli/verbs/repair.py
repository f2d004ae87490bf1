"""`batcher repair`: load what `verify` finds missing, and remove duplicates where the target can do that."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batcher.cli.support.inspection import Inspection, inspecting, loaded, parser, retry_of
from batcher.cli.support.refused import ALL_REFUSED
from batcher.cli.support.routed import one_target
from batcher.cli.verbs.verify import show

if TYPE_CHECKING:
    from batcher.audit.repair import NotingQueue, Repaired, Repairer
    from batcher.audit.report import AuditReport
    from batcher.engine.writer import Writer
    from batcher.protocols import Removable

USAGE: Final = "batcher repair --sink … -b … -t … -g … [--yes] [--remove-duplicates] [flags of verify]"

NOTES: Final = """\
Without --yes it only says what it would do. Stop the pipeline first: repair refuses while the group has members. Then
it verifies again. The exit codes are those of verify, and 78 when all that was to be loaded was refused.\
"""


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """Hold the flags of this verb."""

    yes: bool
    remove_duplicates: bool
    force: bool
    as_json: bool


def main(argv: Sequence[str]) -> int:
    """Repair, or say what would be repaired, and return the exit code of `verify`."""
    made = parser("repair", USAGE, "Load what is missing, from Kafka, as a run would.", NOTES)
    made.add_argument("--yes", action="store_true", help="do it; without this nothing is changed")
    made.add_argument(
        "--remove-duplicates",
        action="store_true",
        help="ClickHouse: delete every copy of duplicates and load them again, where Kafka still has the records",
    )
    made.add_argument("--force", action="store_true", help="also while the group has members")
    found = loaded(made, argv)
    given = found.arguments
    options = RepairOptions(given.yes, given.remove_duplicates, given.force, given.json)
    with inspecting(one_target(found.settings), given) as inspection:
        removable = _removable(inspection) if options.remove_duplicates else None
        if not options.yes:
            return _planned(inspection.report(), options)
        if not options.force:
            _refuse_beside_members(inspection)
        with _mending(inspection) as repairer:
            done = _mended(inspection, repairer, removable)
        report = inspection.report()
    _tell(report, done, options)
    # What was missing and is now a dead letter is accounted for. If all of it is dead letters, that is no success.
    return report.exit_code or (ALL_REFUSED if done.dead_lettered and not done.loaded else 0)


def _planned(report: AuditReport, options: RepairOptions) -> int:
    missing = sum(one.missing.offsets for one in report.accounts)
    duplicated = sum(one.duplicated.offsets for one in report.accounts)
    removed = duplicated if options.remove_duplicates else 0
    text = [f"nothing was changed; with --yes {missing:,} records would be loaded"]
    if removed:
        text.append(f"and every copy of {removed:,} duplicated records deleted, and the records loaded again")
    elif duplicated:
        text.append("and the duplicated ones left alone; see --remove-duplicates")
    more = {"dry_run": True, "would_load": missing, "would_remove": removed}
    show(report, as_json=options.as_json, more=more, text=[" ".join(text)])
    return report.exit_code


def _tell(report: AuditReport, done: Repaired, options: RepairOptions) -> None:
    text = [
        (
            f"{done.loaded:,} records loaded, {done.removed:,} of them duplicates before; "
            f"{done.dead_lettered:,} became dead letters"
        )
    ]
    for partition, span in done.refused[:20]:
        text.append(
            f"still duplicated: {partition}, {span.offsets:,} from {span.first} on: Kafka does not have them any more"
        )
    more = {
        "dry_run": False,
        "repaired": {
            "loaded": done.loaded,
            "dead_lettered": done.dead_lettered,
            "removed": done.removed,
            "refused": done.refused_offsets,
        },
    }
    show(report, as_json=options.as_json, more=more, text=text)


def _removable(inspection: Inspection) -> Removable:
    from batcher.errors import ConfigurationError
    from batcher.protocols.sink import removable

    found = removable(inspection.sink, inspection.info)
    if found is None:
        raise ConfigurationError(f"--remove-duplicates: {inspection.info.target} cannot delete single rows")
    return found


def _refuse_beside_members(inspection: Inspection) -> None:
    from batcher.cli.support import wiring
    from batcher.errors import ConfigurationError

    members = inspection.reader.members()
    if members:
        raise ConfigurationError(
            f"group {wiring.name_of(inspection.settings)} has {members} members: stop the pipeline first (one that was "
            "killed is a member until its session timeout), or give --force"
        )


def _mended(inspection: Inspection, repairer: Repairer, removable: Removable | None) -> Repaired:
    from batcher.audit.repair import Repaired
    from batcher.telemetry import logs

    done = Repaired()
    auditor = inspection.auditor()
    for scope in inspection.scopes:
        if scope.cut:
            logs.get(__name__).warning("not_repaired", partition=str(scope.partition), reason="the log was cut")
            continue
        for finding in auditor.findings(scope):
            done = done.plus(repairer.load(finding))
            if removable is not None:
                done = done.plus(repairer.replace_duplicates(finding, removable))
    return done


@contextmanager
def _mending(inspection: Inspection) -> Iterator[Repairer]:
    from batcher.audit.repair import NotingQueue, Repairer
    from batcher.cli.support import wiring

    batch = inspection.settings.batch
    queue = wiring.dead_letters_of(inspection.settings)
    noting = None if queue is None else NotingQueue(queue)
    try:
        if noting is not None:
            noting.open()
        yield Repairer(
            inspection.reader,
            inspection.target,
            _writer(inspection, noting),
            noting,
            name=f"{wiring.name_of(inspection.settings)}|repair",
            max_rows=batch.max_rows,
            max_bytes=int(batch.max_bytes),
            # Such a target may name what it keeps by its range, and replace one block by another.
            whole_ranges=inspection.info.repeats != "query",
            attempt=inspection.attempt,
        )
    finally:
        if noting is not None:
            noting.close()


def _writer(inspection: Inspection, queue: NotingQueue | None) -> Writer:
    from batcher.cli.support import wiring
    from batcher.core.limits import DeadLetterLimit
    from batcher.engine.writer import Writer

    settings = inspection.settings
    return Writer(
        inspection.sink,
        inspection.info,
        wiring.format_of(settings),
        dead_letters=queue,
        limit=DeadLetterLimit(wiring.poison_of(settings)),
        retry=retry_of(settings),
        abort=threading.Event(),
        reconcile="always",
        evolution=wiring.evolution_of(settings),
    )
