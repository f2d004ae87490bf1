"""Send the records of dead letters back to the topic they came from.

They get new offsets there. Readers of the topic see them once more, a crash on the way may send one twice, and nothing
can tell the target that it has them already. So each record carries how often it was sent back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from batcher.dead_letters.kafka import deliver, producer_properties
from batcher.dead_letters.kit.report import ReplayReport
from batcher.dead_letters.kit.select import ATTEMPTS, StoredLetter
from batcher.sources.kafka.asking import Complaints, asked, unanswered
from batcher.sources.kafka.properties import accepted

TIMEOUT_S: Final = 30.0

log = logging.getLogger(__name__)


class Resender:
    """Produce records to their original topics and partitions, every delivery report awaited.

    A record that was sent back `max_attempts` times is skipped, as is one that is not kept whole. A step takes at most
    about `timeout_s` seconds. With `dry_run` nothing is sent.
    """

    def __init__(
        self,
        brokers: str,
        properties: Mapping[str, str],
        report: ReplayReport,
        *,
        max_attempts: int = 3,
        timeout_s: float = TIMEOUT_S,
        dry_run: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._report = report
        self._max_attempts = max_attempts
        self._timeout_s = timeout_s
        self._dry_run = dry_run
        self._stopped = stopped
        made = producer_properties(brokers, properties, timeout_s)
        self._complaints = Complaints()
        with accepted(made, "producer of --to topic"):
            self._producer = Producer({**made, "error_cb": self._complaints}, logger=log)

    def open(self) -> None:
        """Ask the brokers for their topics, so that a wrong address is found before the first record.

        Raise Unreachable when none answers, ConfigurationError when they refuse the connection, Stopped when `stopped`
        says so before one does.
        """
        try:
            ask, reason = partial(self._producer.list_topics, None), self._complaints.of(self._producer)
            asked(ask, self._timeout_s, self._stopped, reason=reason)
        except KafkaException as error:
            raise unanswered(error, "--to topic") from error

    def take(self, step: Sequence[StoredLetter]) -> None:
        """Send the records of a step and count what became of each."""
        ready = [stored for stored in step if self._wanted(stored)]
        if self._dry_run:
            self._report.replayed += len(ready)
            return
        records = [arguments(stored) for stored in ready]
        failures = deliver(self._producer, records, time.monotonic() + self._timeout_s, self._timeout_s)
        self._report.replayed += len(ready) - len(failures)
        for index, error in failures.items():
            self._report.fail(ready[index], error.name(), error.str())

    def close(self) -> None:
        """Release the producer; what is still in it was counted as failed."""
        self._producer.purge()
        self._producer.flush(1.0)
        self._producer.close()

    def _wanted(self, stored: StoredLetter) -> bool:
        if not stored.complete:
            self._report.skipped["not_whole"] += 1
        elif stored.attempts >= self._max_attempts:
            self._report.skipped["attempts"] += 1
        else:
            return True
        return False


def arguments(stored: StoredLetter) -> dict[str, Any]:
    """Return the arguments of `Producer.produce` for a record that is sent back."""
    record = stored.letter.record
    made: dict[str, Any] = {
        "topic": record.partition.topic,
        # By number: another partitioner than the first producer's would separate records of one key.
        "partition": record.partition.number,
        "key": record.key,
        "value": record.value,
        "headers": [
            *((name, content) for name, content in record.headers if name != ATTEMPTS),
            (ATTEMPTS, str(stored.attempts + 1).encode()),
        ],
    }
    # librdkafka takes 0 for "now".
    if record.timestamp_ms:
        made["timestamp"] = record.timestamp_ms
    return made
