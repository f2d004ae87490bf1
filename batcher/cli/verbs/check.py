"""`batcher check`: what would become of the records of a topic in this target, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from batcher.cli.support.routed import one_target
from batcher.cli.support.sampling import loaded, parser, sample_of
from batcher.settings import Settings, UsageError

if TYPE_CHECKING:
    from batcher.preview.check import Fit

USAGE: Final = "batcher check -b BROKERS -t TOPIC --sink … [-n N] [flags of run]"

NOTES: Final = """\
Give the flags that the pipeline will run with. Some records, the oldest and the newest of each partition, are decoded
for the columns that the target has now. Nothing is written: no group is joined and no offset is committed.

Exit codes: 0 everything in them would be stored · 1 records would be refused, or have fields that no column takes ·
2 bad command line · 69 unreachable · 78 the target or a setting is wrong, or there is no record.\
"""


def main(argv: Sequence[str]) -> int:
    """Print what would become of some records and return 0 where all of each would be stored, else 1."""
    made = parser("check", USAGE, "Show how the records of a topic fit a target.", NOTES)
    found = loaded(made, argv)
    if not found.settings.sink:
        raise UsageError(["--sink: into which target?"])
    fit = _fit(one_target(found.settings), found.arguments.records)
    from batcher.preview.check import facts, lines

    if found.arguments.json:
        print(json.dumps(facts(fit)), flush=True)
    else:
        for line in lines(fit):
            print(line)
        print(end="", flush=True)
    return 0 if fit.whole else 1


def _fit(settings: Settings, records: int) -> Fit:
    from batcher.cli.support import wiring
    from batcher.cli.support.measurement import described
    from batcher.engine.evolution import Evolution
    from batcher.errors import ConfigurationError
    from batcher.preview.check import fit_of
    from batcher.protocols.proposal import Foresighted

    info = described(settings)
    sample, format_ = sample_of(settings, records), wiring.format_of(settings)
    schema = info.schema if info.schema is not None else format_.infer(sample.batch)
    if schema is None:
        raise ConfigurationError(
            f"none of {sample.rows:,} records can be read as --decode.format {settings.decode.format}: "
            "`batcher peek` shows them"
        )
    sink = wiring.sink_of(settings)
    refuse = sink.refused if isinstance(sink, Foresighted) else None
    # It is not called: nothing here gives the target a column.
    evolution = Evolution(sink, info, format_, wiring.evolution_of(settings), call=lambda *_: None)
    flush = wiring.flush_of(settings)
    return fit_of(sample, format_, info, schema, flush=flush, refuse=refuse, evolution=evolution)
