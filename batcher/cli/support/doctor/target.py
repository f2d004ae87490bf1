"""The target, as `check` asks it, and the place for dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from batcher.cli.support.doctor.finding import HealthFinding, doubtful, fine, guarded
from batcher.cli.support.spans import plural
from batcher.settings import Settings

_REPEATS: Final = {
    "none": "knows nothing about repeats",
    "token": "recognises a repeat by its token",
    "replace": "a repeat replaces what it wrote before",
    "query": "can be asked which records it has",
}


def targets(settings: Settings) -> Iterator[HealthFinding]:
    """Ask each target what it is like."""
    from batcher.cli.support.routed import all_targets

    for own in all_targets(settings):
        yield from guarded("target", partial(_target, own))


def _target(settings: Settings) -> Iterator[HealthFinding]:
    from batcher.cli.support.measurement import described

    info = described(settings)
    columns = "takes any columns" if info.schema is None else f"has {plural(len(info.schema), 'column')}"
    said = f"{info.target} answers and {columns}; {info.guarantee}: {info.reason or _REPEATS[info.repeats]}"
    yield fine("target", said) if info.guarantee == "exactly-once" else doubtful("target", said)


def dead_letters(settings: Settings) -> Iterator[HealthFinding]:
    """Say what becomes of a record that is refused."""
    dlq = settings.dlq
    if dlq.topic or dlq.path or dlq.queue:
        place = f"topic {dlq.topic}" if dlq.topic else f"directory {dlq.path}" if dlq.path else f"{dlq.queue}"
        yield fine("dead letters", f"go to the {place}" if dlq.topic or dlq.path else f"go to {place}")
    else:
        yield doubtful("dead letters", "have no place, so the first refused record stops the pipeline; --dlq.path DIR")
