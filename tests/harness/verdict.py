"""Compare what was produced with what is in a target and in the dead letters, after an attack (see `attack`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from batcher.records import Partition
from tests.harness.census import Census, Coordinate
from tests.harness.processes import Event
from tests.harness.targets import Loaded


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say what became of everything that was produced, and what was done meanwhile.

    `census` is over rows and dead letters, each record once. A letter may be stored twice after a crash, with the
    same coordinates: such repeats are in `repeated_letters` and nowhere else. `swapped` are rows whose id is not the
    one that was produced at their coordinates. `replays` are batches announced before a crash and delivered again;
    of these, `present` are those that had been written before the crash, as far as the log or a crash point told.
    """

    seed: int
    census: Census
    swapped: int
    produced: int
    rows: int
    letters: int
    repeated_letters: int
    kills: int
    stops: int
    rebalances: int
    replays: int
    present: int
    suppressed: int
    hit: Mapping[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Return the number of records that are nowhere."""
        return len(self.census.lost)

    @property
    def duplicated(self) -> int:
        """Return the number of rows that are there beyond the one of each record."""
        return self.rows + self.letters + self.lost - self.produced - len(self.census.foreign)

    @property
    def complete(self) -> bool:
        """Return whether every record is somewhere, nothing else is, and each row is where it belongs."""
        return self.census.complete and not self.swapped

    @property
    def exact(self) -> bool:
        """Return whether, besides, every record is there once."""
        return self.complete and self.census.exact

    def __str__(self) -> str:
        return (
            f"{self.census}, swapped {self.swapped}; {self.produced} produced, {self.rows} rows, {self.letters} "
            f"letters ({self.repeated_letters} repeated); {self.kills} kills, {self.stops} stops, {self.rebalances} "
            f"rebalances, {self.replays} replays ({self.present} found their data), {self.suppressed} suppressed; "
            f"seed {self.seed}, points {dict(self.hit)}"
        )


@dataclass(frozen=True, slots=True)
class Deeds:
    """Say what was done, with which seed, how often each crash point killed, and what each run logged."""

    seed: int
    kills: int
    stops: int
    hit: Mapping[str, int]
    runs: Sequence[Sequence[Event]]


def judged(
    ids: Mapping[Coordinate, int],
    poison: AbstractSet[Coordinate],
    loaded: Loaded,
    letters: Sequence[Coordinate],
    deeds: Deeds,
) -> Verdict:
    """Compare the ids produced, by their coordinates, with what is in the target and in the dead letters."""
    places = {number: place for place, number in ids.items()}
    nowhere = Partition("", -1)
    by_id = [places.get(number, (nowhere, number)) for number in loaded.ids]
    swapped = sum(a != b for a, b in zip(by_id, loaded.coordinates, strict=True)) if loaded.coordinates else 0
    produced: dict[Partition, list[int]] = {}
    for partition, offset in ids:
        produced.setdefault(partition, []).append(offset)
    replays = list(_replays(deeds.runs))
    return Verdict(
        seed=deeds.seed,
        # A letter for a record that is no poison takes that record's place, and the row it should have been is foreign.
        census=Census.of(produced, by_id, set(letters)),
        swapped=swapped + len(set(letters) ^ poison),
        produced=len(ids),
        rows=len(loaded.ids),
        letters=len(set(letters)),
        repeated_letters=len(letters) - len(set(letters)),
        kills=deeds.kills,
        stops=deeds.stops,
        rebalances=sum(max(0, len(_assignments(run)) - 1) for run in deeds.runs),
        replays=len(replays),
        present=sum(replays),
        suppressed=sum(int(event.get("suppressed", 0)) for run in deeds.runs for event in run if _written(event)),
        hit=dict(sorted(deeds.hit.items())),
    )


AFTER_A_WRITE: Final = frozenset({"after_write", "after_dead_letters", "after_replay_write", "before_commit"})
"""Crash points at which the batch being delivered is in the target."""


def _replays(runs: Iterable[Sequence[Event]]) -> Iterator[bool]:
    """Yield for each replayed batch whether its rows had been written before."""
    runs = list(runs)
    known: Counter[str] = Counter()
    for run in runs:
        for event in run:
            if _written(event) or (event["event"] == "crash_point" and event["point"] in AFTER_A_WRITE):
                known.update(event["ranges"])
    for run in runs:
        for event in run:
            if _written(event) and event["replayed"]:
                # It is itself one of those that are known.
                yield event.get("suppressed", 0) > 0 or any(known[span] > 1 for span in event["ranges"])


def _written(event: Event) -> bool:
    return bool(event["event"] == "batch_written")


def _assignments(run: Sequence[Event]) -> list[Event]:
    return [event for event in run if event["event"] == "partitions_assigned" and event["positions"]]
