"""Read topics as the pipeline does, outside every group: nothing is committed, nothing rebalances.

Partitions are assigned, not subscribed to. All else, from `consume()` to the columns, is what a run does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, TopicPartition

from batcher.errors import ConfigurationError
from batcher.records import Partition, Position, Records
from batcher.sources.kafka.cluster import first_look
from batcher.sources.kafka.offsets import StartOffsets
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.records_reader import PartitionEvent
from batcher.sources.kafka.source import OPEN_TIMEOUT_S, KafkaSource
from batcher.sources.starts import GivenOffsets


class DetachedSource(KafkaSource):
    """Read every partition of `options` from where its policy says, whatever was committed.

    The group of `options` is a name that was never used; the group never comes into being.
    """

    def __init__(self, options: KafkaOptions) -> None:
        super().__init__(options)
        self._told = False
        self.places: Mapping[Partition, tuple[int, int]] = {}
        """Where reading starts in each partition, and where its log ended then."""

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Do nothing."""

    def _look_around(self, consumer: Consumer) -> None:
        partitions = first_look(consumer, self._options, self._incidents, OPEN_TIMEOUT_S).partitions
        if not partitions:
            raise ConfigurationError(f"-t {','.join(self._options.topics)}: there is no such topic")
        self._offsets = offsets = StartOffsets(consumer, self._options)
        start = self._options.start
        places = {}
        for partition in partitions:
            low, high = offsets.watermarks(partition)
            begins: int | None = low
            if start == "latest":
                begins = None
            elif isinstance(start, GivenOffsets):
                begins = start.of(*partition)
            elif start != "earliest":
                begins = offsets.at_time(partition, start)
            places[partition] = (high if begins is None else begins, high)
        self.places = places

    def _subscribe(self, consumer: Consumer) -> None:
        self._open_reader.expect(self.places)
        consumer.assign([TopicPartition(*partition, first) for partition, (first, _) in self.places.items()])
        for partition, (first, end) in self.places.items():
            self._progress.begin(partition, first, end)
        self._assigned_once = True

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        if not self._told:
            self._told = True
            assert self._listener is not None
            self._listener.on_assigned({partition: Position(first) for partition, (first, _) in self.places.items()})
        return super().fetch(max_records, max_bytes, timeout_s)

    def _look_for_topics(self) -> None:
        """Do nothing: what is read was decided at the start."""

    def _on_event(self, event: PartitionEvent) -> None:
        if event.error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            # librdkafka asks for the coordinator of any group whose name it is given. Nothing is wanted from it.
            return
        super()._on_event(event)
