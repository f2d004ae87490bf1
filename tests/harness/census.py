"""Compare by coordinates what was put into topics with what has come out of them: nothing lost, nothing duplicated.

orders = fill(broker, topic, 4, 100_000, poison=100)
...                                                    # run batcher
letters = dead_letters_in(broker.bootstrap, dlq)
census = Census.of(orders.offsets, coordinates_of(table), letter_coordinates(letters))
assert census.exact, census
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from batcher.dead_letters.kafka import letter_of
from batcher.generate.events import POISON, EventGenerator
from batcher.records import DeadLetter, Partition
from batcher.testing.kafka import Broker

Coordinate = tuple[Partition, int]
"""A partition and an offset."""

SHOWN: Final = 5
"""Offsets that the text of a census names of each kind."""


@dataclass(frozen=True, slots=True)
class Census:
    """Say which records are nowhere, which are there more than once, and which nobody produced."""

    lost: Sequence[Coordinate]
    duplicated: Sequence[Coordinate]
    foreign: Sequence[Coordinate]

    @staticmethod
    def of(produced: Mapping[Partition, Collection[int]], *places: Iterable[Coordinate]) -> Census:
        """Count the coordinates found in all places together: each one produced should be there once."""
        found = Counter(coordinate for place in places for coordinate in place)
        expected = {(partition, offset) for partition, offsets in produced.items() for offset in offsets}
        return Census(
            lost=sorted(expected - found.keys()),
            duplicated=sorted(coordinate for coordinate, times in found.items() if times > 1),
            foreign=sorted(found.keys() - expected),
        )

    @property
    def complete(self) -> bool:
        """Return whether every record is somewhere and nothing else is: what at-least-once promises."""
        return not self.lost and not self.foreign

    @property
    def exact(self) -> bool:
        """Return whether every record is in one place once."""
        return self.complete and not self.duplicated

    def __str__(self) -> str:
        kinds = {"lost": self.lost, "duplicated": self.duplicated, "foreign": self.foreign}
        return ", ".join(
            f"{kind} {len(found)}"
            + (f" ({'; '.join(f'{p} {offset}' for p, offset in found[:SHOWN])})" if found else "")
            for kind, found in kinds.items()
        )


@dataclass(frozen=True, slots=True)
class Filling:
    """Say what was put into a topic: where each partition ends, which records are poison, what the ids add up to."""

    topic: str
    ends: Mapping[Partition, int]
    poison: frozenset[Coordinate]
    id_sum: int
    """Over the records that are not poison."""

    @property
    def records(self) -> int:
        """Return the number of records, poison included."""
        return sum(self.ends.values())

    @property
    def offsets(self) -> Mapping[Partition, range]:
        """Return the offsets of each partition."""
        return offsets_below(self.ends)


def fill(
    broker: Broker, topic: str, partitions: int, records: int, *, poison: int = 0, template: str | None = None
) -> Filling:
    """Put orders (see `events.ORDERS`) into an empty topic that exists, evenly, and say what is where.

    `poison` of them, evenly spread, are unreadable in the ways of `events.POISON`. A template has to have a
    whole number `id` that counts from 0.
    """
    generator = EventGenerator(seed=1) if template is None else EventGenerator(template, seed=1)
    values = generator.take(records)
    kinds = [spoil for _, spoil in POISON]
    # The second term spreads them over the partitions as well, whatever divides what.
    spoiled = [number * records // poison + number % min(partitions, records // poison) for number in range(poison)]
    for number, index in enumerate(spoiled):
        values[index] = kinds[number % len(kinds)](values[index])
    for partition in range(partitions):
        broker.produce(topic, values[partition::partitions], partition=partition, compression="lz4")
    return Filling(
        topic,
        {Partition(topic, number): len(range(number, records, partitions)) for number in range(partitions)},
        frozenset((Partition(topic, index % partitions), index // partitions) for index in spoiled),
        records * (records - 1) // 2 - sum(spoiled),
    )


def offsets_below(ends: Mapping[Partition, int]) -> dict[Partition, range]:
    """Return the offsets of partitions that have nothing removed from them."""
    return {partition: range(end) for partition, end in ends.items()}


def committed_offsets(broker: Broker, group: str, partitions: Iterable[Partition]) -> dict[Partition, range]:
    """Return the offsets that a group has done with, by what it has committed."""
    positions = broker.committed(group, partitions)
    return offsets_below({partition: at.next_offset for partition, at in positions.items()})


def committed_by(arguments: Sequence[str], broker: Broker, partitions: Iterable[Partition]) -> dict[Partition, range]:
    """Return the offsets that the group of a command line has done with."""
    return committed_offsets(broker, arguments[arguments.index("-g") + 1], partitions)


def dead_letters_in(bootstrap: str, topic: str) -> list[DeadLetter]:
    """Return the dead letters that a topic holds now, as `--dlq.topic` wrote them."""
    return [letter_of(message) for message in Broker(bootstrap).records(topic)]


def letter_coordinates(letters: Iterable[DeadLetter]) -> list[Coordinate]:
    """Return where the records of dead letters came from."""
    return [(letter.record.partition, letter.record.offset) for letter in letters]
