"""Whether a topic is still the one whose offsets we have.

A topic that was deleted and created anew gets the same name, and soon the same offsets. A reader that goes on where it
was never sees the first records of the new one. So its id is compared at every assignment, before commits, and every
now and then. An id that was seen a moment ago is believed: the answer describes every partition, and small batches are
committed a hundred times a second. Should another topic come into that moment, the next question tells it, and so does
the next start: a commit carries the id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

from batcher.errors import DataGap
from batcher.records import Partition
from batcher.sources.kafka.admin import Admin
from batcher.sources.kafka.metadata import StoredPosition

CHECK_EVERY_S: Final = 10.0

CHECK_TIMEOUT_S: Final = 1.0
"""The question keeps the thread from everything else."""

FRESH_S: Final = 0.1
"""How long an answer is good enough for commits. A topic takes longer to be deleted, made and filled."""

FRESH_TIMES: Final = 20
LONGEST_FRESH_S: Final = 1.0
"""The same as a multiple of what the question took, 4 ms with 256 partitions: so it takes 5 % of a loop at most."""

LEARN_TIMEOUT_S: Final = 5.0
"""The time for the ids at an assignment, with which all later ones are compared."""

REST_S: Final = 5.0
LONGEST_REST_S: Final = 300.0
"""The longest time without a question after one that was not answered: the time is twice as long each time."""


class Identity:
    """Know the id of each topic that is read, and raise DataGap when its name stands for another topic by now."""

    def __init__(self, admin: Admin, clock: Callable[[], float] = time.monotonic) -> None:
        self._admin = admin
        self._clock = clock
        self._ids: dict[str, str] = {}
        self._due_at = 0.0
        self._resting_until = 0.0
        self._rest_s = REST_S
        self._fresh_until: dict[str, float] = {}

    def __getitem__(self, topic: str) -> str | None:
        return self._ids.get(topic)

    def doubt(self) -> None:
        """Ask for a comparison of the ids at the next occasion: the connection was lost, or topics changed."""
        self._due_at = 0.0
        self._fresh_until.clear()

    def learn(self, topics: Collection[str]) -> None:
        """Take over topics; one that this process has read before has to be the same."""
        found = self._admin.topic_ids(topics, LEARN_TIMEOUT_S) or {}
        self._compare(found)
        self._ids.update({topic: topic_id for topic, topic_id in found.items() if topic_id is not None})

    def match(self, stored: Mapping[Partition, StoredPosition]) -> None:
        """Compare the topics of commits with those that exist; keep the id of a commit where no other is known."""
        for partition, (position, topic_id) in stored.items():
            if topic_id is not None and self._ids.setdefault(partition.topic, topic_id) != topic_id:
                raise DataGap(
                    f"{partition}: offset {position.next_offset} was committed for another topic of this name, which "
                    "was deleted and created anew since: what the new one holds below that would not be read; reset "
                    "the group's offsets for the topic, or read it with another group (-g)"
                )

    def check(self, topics: Collection[str]) -> None:
        """Ask for the ids now, unless the last question was not answered a moment ago."""
        now = self._clock()
        if now < self._resting_until:
            return
        self._due_at = now + CHECK_EVERY_S
        found = self._admin.topic_ids([topic for topic in topics if topic in self._ids], CHECK_TIMEOUT_S)
        if found is None:
            self._resting_until = now + self._rest_s
            self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
            return
        self._rest_s = REST_S
        self._compare(found)
        answered = self._clock()
        fresh_until = answered + min(max(FRESH_S, FRESH_TIMES * (answered - now)), LONGEST_FRESH_S)
        self._fresh_until.update(dict.fromkeys(topics, fresh_until))

    def check_for_commit(self, topics: Collection[str]) -> None:
        """Ask for the ids of those topics that were not asked for a moment ago; the others are asked for soon."""
        now = self._clock()
        if stale := [topic for topic in topics if self._fresh_until.get(topic, 0.0) <= now]:
            self.check(stale)
        else:
            self._due_at = min(self._due_at, *(self._fresh_until[topic] for topic in topics))

    def check_now_and_then(self, topics: Callable[[], Collection[str]]) -> None:
        """Ask for the ids if it is time."""
        if self._ids and self._clock() >= self._due_at:
            self.check(topics())

    def _compare(self, found: Mapping[str, str | None]) -> None:
        for topic, topic_id in found.items():
            known = self._ids.get(topic)
            if topic_id is not None and known is not None and topic_id != known:
                raise DataGap(
                    f"topic {topic} was deleted and created anew while it was read: what came since is another log, "
                    "and nothing of it is committed; start again to read it from its first record, or, should the "
                    "group still have offsets of the old one, reset them first"
                )
