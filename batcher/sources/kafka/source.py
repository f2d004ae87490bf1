"""Read Kafka: one consumer, owned by one thread, its records in columns and its gaps never jumped over.

It is long because one object has to be the contract and all of the client's callbacks. What can be told apart from it
is in the modules beside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NoReturn

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from batcher.errors import BatcherError, CommitRefused, ConfigurationError, DataGap, RecordUnreadable, SourceLost
from batcher.protocols import PartitionListener, SourceInfo
from batcher.records import Partition, Position, Records
from batcher.sources.kafka.admin import Admin
from batcher.sources.kafka.cluster import Cluster, ConnectionLog, cluster_of, first_look, lag_of
from batcher.sources.kafka.commit import Committed, store
from batcher.sources.kafka.credentials import Credentials
from batcher.sources.kafka.errors import (
    FATAL,
    FORBIDDEN,
    MAX_POLL_EXCEEDED,
    OUT_OF_RANGE,
    PARTITION_EOF,
    STUCK,
    ClientDead,
    error_of,
    fatal,
    forbidden,
    text_of,
)
from batcher.sources.kafka.group_progress import GroupProgress
from batcher.sources.kafka.identity import Identity
from batcher.sources.kafka.metadata import StoredPosition, pack
from batcher.sources.kafka.native_reader import ReaderMaker
from batcher.sources.kafka.offsets import StartOffsets, StartPosition
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.progress import ReadProgress
from batcher.sources.kafka.records_reader import PartitionEvent, RecordReader
from batcher.sources.kafka.topics import Absence, Topics
from batcher.sources.kafka.unowned import UnownedPartitions
from batcher.sources.kafka.wait import Wait

__all__ = ["KafkaOptions", "KafkaSource"]

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S: Final = 10.0
"""The time for the first answer of a broker, name resolution, TLS and SASL included."""

SHORTEST_S: Final = 0.001
"""librdkafka waits in whole milliseconds, and does not wait at all for less. An idle process went round thirty times in
the last millisecond of every fetch, which was most of what it did."""

FIRST_COMMIT_TIMEOUT_S: Final = 60.0
"""Longer than the session of a member that died (45 s): a group that waits for it may answer nothing for as long."""

CLOSE_TIMEOUT_S: Final = 5.0
"""librdkafka's close waits for commits without an answer: 45 s after the broker died (measured), a moment otherwise."""

CHECK_EVERY_S: Final = 10.0
CHECK_TIMEOUT_S: Final = 1.0
"""The time for asking whether the topics are still there: it keeps the thread from everything else."""

END_TIMEOUT_S: Final = 5.0
"""The time for asking, once, what comes after the last record that can be read."""


class KafkaSource:
    """Read the subscription of `options` (see protocols.Source).

    Beyond the contract: once `fetch` has raised, it only raises the same again, because librdkafka may have moved past
    records that were never delivered. `commit` still works for the partitions owned. A deleted topic raises SourceLost
    if it was named; one that a regular expression found only leaves the subscription. A topic that was deleted and
    created anew under a reader raises DataGap, from `commit` too. After the thread was held up for longer than
    `max.poll.interval.ms`, everything is lost (`on_lost`) and assigned anew.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._consumer: Consumer | None = None
        self._maker = ReaderMaker(options.native)
        self._reader: RecordReader | None = None
        self._listener: PartitionListener | None = None
        self._offsets: StartOffsets | None = None
        self._credentials = Credentials(options.properties, options.reload, self._use_credentials)
        self._incidents = ConnectionLog()
        self._admin = Admin(options, able=False)
        self._identity = Identity(self._admin)
        self._topics = Topics(options)
        self._absence = Absence()
        self._wait = Wait(options.group, options.session_timeout_s, options.instance)
        self._unowned = UnownedPartitions(options, self._admin.unowned)
        self._ended = False
        self._failure: BaseException | None = None
        self._unreadable: RecordUnreadable | None = None
        self._damaged: set[Partition] = set()
        self._only_topic = options.topics[0] if len(options.topics) == 1 and not options.has_expressions else None
        # Only of the partitions that the listener took. Others that are assigned to us deliver nothing.
        self._progress = ReadProgress()
        # Counted to tell how long ago librdkafka took everything away.
        self._fetches = 0
        self._all_lost_at: int | None = None
        self._next_check = 0.0
        self._assigned_once = False
        self._others: GroupProgress | None = None
        self._giving_up = False
        self._lag: dict[Partition, int] = {}

    def open(self, listener: PartitionListener) -> SourceInfo:
        """Connect, check the topics, subscribe. Raise Unreachable or ConfigurationError.

        May be called again after Unreachable.
        """
        self._listener = listener
        self._incidents = ConnectionLog()
        settings: dict[str, Any] = {
            **self._options.librdkafka(),
            "error_cb": self._incidents.on_error,
            "stats_cb": self._on_statistics,
            "logger": self._incidents.logger,
        }
        consumer, self._reader = self._maker.connect(settings, self._only_topic)
        try:
            self._look_around(consumer)
        except BaseException:
            self._reader.close()
            _close_within(consumer, CLOSE_TIMEOUT_S)
            raise
        self._consumer = consumer
        self._subscribe(consumer)
        self._incidents.started = True
        # Held for longer than the session, the group would give this member up. The other half is for the last commit.
        drain_timeout_s = self._options.session_timeout_s / 2
        return SourceInfo(
            keeps_intents=True,
            reason="",
            capabilities=frozenset({"lag", "offer"}),
            topics=self._topics.names,
            drain_timeout_s=drain_timeout_s,
        )

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        if self._failure is not None:
            raise self._failure
        self._fetches += 1
        try:
            self._look_around_again()
            runs = self._read_until(time.monotonic() + timeout_s, max_records, max_bytes)
            if self._options.until_eof and not self._ended and self._progress and self._progress.finished:
                self._ended = True
                self._look_behind_the_end()
        except BaseException as error:
            # What had been fetched is destroyed while the position moved on (a signal handler that raises does it).
            self._fail(error)
        if self._failure is not None:
            raise self._failure
        if self._unreadable is not None and not runs:
            unreadable, self._unreadable = self._unreadable, None
            raise unreadable
        return runs

    def pause(self, partitions: Collection[Partition]) -> None:
        self._for_owned(self._open_consumer.pause, partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._for_owned(self._open_consumer.resume, partitions)

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        ours = {
            partition: self._committed(partition, position)
            for partition, position in positions.items()
            if partition in self._progress
        }
        refused = {partition: "not assigned to this process" for partition in positions if partition not in ours}
        if ours:
            self._check_identity({partition.topic for partition in ours})
            try:
                fenced = store(
                    self._open_consumer, ours, timeout_s, self._options.instance, rebalancing=self._giving_up
                )
            except ClientDead as error:
                # As for what `fetch` finds out: nothing is read, committed or closed any more.
                self._failure = self._failure or error
                raise
            self._progress.refused(fenced, time.monotonic())
            refused.update(fenced)
        if refused:
            raise CommitRefused(refused)

    @property
    def reached(self) -> Mapping[Partition, int]:
        return self._progress.positions

    @property
    def exhausted(self) -> bool:
        if not (self._options.until_eof and self._assigned_once and self._progress.finished):
            return False
        return self._others is None or self._others.through(self._progress.positions)

    def lag(self) -> Mapping[Partition, int]:
        """Return how many records the commits were behind, for each partition owned, some seconds ago."""
        # A copy, which takes one step: the fetch thread changes the original.
        return {partition: count for partition, count in dict(self._lag).items() if partition in self._progress}

    def offer(self, partitions: Collection[Partition]) -> None:
        consumer = self._open_consumer
        if self._failure is not None:
            return
        assigned = {Partition(one.topic, one.partition) for one in consumer.assignment()}
        ours = [part for part in partitions if part in assigned and part not in self._progress]
        found: dict[Partition, StartPosition] = {}
        for partition, at in self._resolve(ours).items():
            try:
                # Paused since it was assigned, it has delivered nothing; its position may be one that was chosen anew.
                consumer.seek(TopicPartition(*partition, at.position.next_offset))
            except KafkaException as error:
                # The client has not begun to read it yet; it is offered again in the next round.
                log.debug("partition_not_offered", partition=str(partition), error=text_of(error_of(error)))
                continue
            found[partition] = at
        if found:
            self._hand_over(consumer, found)

    def ignore(self, partitions: Collection[Partition]) -> None:
        ours = [partition for partition in partitions if partition in self._progress]
        self._for_owned(self._open_consumer.pause, ours)
        self._progress.forget(ours)
        for partition in ours:
            self._lag.pop(partition, None)
        if self._others is not None:
            self._others.moved()

    def close(self) -> None:
        """Give up the partitions through the listener and leave the group, within about CLOSE_TIMEOUT_S."""
        consumer = self._consumer
        if consumer is None:
            return
        try:
            # This is not left to librdkafka's own callback: while it closes, it no longer reads commits back.
            self._give_up(tuple(self._progress), lost=self._failure is not None)
        finally:
            self._consumer = None
            self._unowned.close()
            self._open_reader.close()
            # Closing a client that is dead never ends, and takes a core meanwhile.
            if not isinstance(self._failure, ClientDead) and not _close_within(consumer, CLOSE_TIMEOUT_S):
                log.warning("kafka_close_abandoned", after_s=CLOSE_TIMEOUT_S)

    @property
    def _open_consumer(self) -> Consumer:
        if self._consumer is None:
            raise SourceLost("the Kafka source is not open")
        return self._consumer

    @property
    def _open_reader(self) -> RecordReader:
        if self._reader is None:
            raise SourceLost("the Kafka source is not open")
        return self._reader

    def _look_around(self, consumer: Consumer) -> None:
        cluster = first_look(consumer, self._options, self._incidents, OPEN_TIMEOUT_S)
        self._topics.begin(cluster.topics)
        self._admin = Admin(self._options, able=cluster.controlled)
        self._identity = Identity(self._admin)
        self._unowned = UnownedPartitions(self._options, self._admin.unowned)
        self._offsets = StartOffsets(consumer, self._options)
        self._offsets.survey(cluster.partitions)
        if self._options.until_eof and self._options.patience_s is not None:
            self._others = GroupProgress(self._offsets, cluster.partitions, self._options.patience_s)

    def _subscribe(self, consumer: Consumer) -> None:
        if not self._topics.names:
            # There is nothing to wait for, and librdkafka takes no empty list.
            self._assigned_once = True
            self._wait.over()
            consumer.unsubscribe()
            return
        if not self._progress:
            self._wait.begin()
        self._unowned.moved()
        consumer.subscribe(
            list(self._topics.names), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _look_around_again(self) -> None:
        """Do what is due before a fetch: nearly always nothing."""
        if self._progress.overdue(time.monotonic()):
            log.warning("commits_refused", hint="the group did not take the partitions away; joining anew")
            self._start_over()
        self._wait.look()
        self._unowned.look(self._topics.names)
        self._look_for_topics()
        if self._incidents.refused:
            self._incidents.refused = False
            # Not where the client reports it: given others inside a callback of its own, it aborts the process.
            self._credentials.refused()
        if self._incidents.interrupted:
            self._incidents.interrupted = False
            self._identity.doubt()
        self._identity.check_now_and_then(self._topics_read)

    def _read_until(self, deadline: float, max_records: int, max_bytes: int) -> list[Records]:
        while True:
            runs = self._read(max_records, max_bytes, max(0.0, deadline - time.monotonic()))
            # The end of a partition is an event, and no reason to return nothing.
            if runs or self._failure is not None or deadline - time.monotonic() < SHORTEST_S:
                return runs

    def _read(self, max_records: int, max_bytes: int, timeout_s: float) -> list[Records]:
        found, events = self._open_reader.read(max_records, max_bytes, timeout_s)
        if not found and not events:
            self._look_behind()
            return []
        # A partition already given up (max.poll.interval.ms) may deliver until librdkafka takes it back.
        runs = [run for run in found if run.partition in self._progress]
        for run in runs:
            self._progress.advance(run.partition, run.next_offset)
        if runs:
            self._incidents.over()
        for event in events:
            self._on_event(event)
        # An event may have taken partitions from us.
        return [run for run in runs if run.partition in self._progress] if events else runs

    def _on_event(self, event: PartitionEvent) -> None:
        error, partition = event.error, event.partition
        code = error.code()
        reached = self._progress.get(partition, 0)
        if code == PARTITION_EOF:
            if partition in self._progress:
                self._progress.advance(partition, max(event.offset or 0, reached))
        elif error.fatal() or code in FATAL:
            raise fatal(error, self._options.instance)
        elif code == MAX_POLL_EXCEEDED:
            self._start_over()
        elif partition in self._damaged:
            # librdkafka repeats it, and that the position cannot be reset, until the pause takes effect.
            return
        elif code in OUT_OF_RANGE:
            self._on_out_of_range(partition, error)
        elif code in STUCK:
            self._on_damage(partition, reached if event.offset is None else event.offset, error)
        elif code in FORBIDDEN:
            raise forbidden(error, f"no access to {partition.topic or self._options.group}")
        else:
            # librdkafka tries again from the same position.
            self._incidents.on_error(error)

    def _on_damage(self, partition: Partition, offset: int, error: KafkaError) -> None:
        self._damaged.add(partition)
        self._open_consumer.pause([TopicPartition(*partition)])
        self._unreadable = RecordUnreadable(
            f"{partition}: the record at offset {offset} cannot be read: {text_of(error)}; what comes before it is "
            f"loaded; commit offset {offset + 1} for group {self._options.group} to go on behind it, or a higher one "
            "where the whole batch is damaged"
        )

    def _on_out_of_range(self, partition: Partition, error: KafkaError) -> None:
        if partition not in self._progress:
            return
        assert self._offsets is not None
        # If it is another topic by now, that is the reason.
        self._identity.check([partition.topic])
        low, high = self._offsets.watermarks(partition)
        position = Position(self._progress[partition])
        if low <= position.next_offset <= high:
            raise DataGap(
                f"{partition}: offset {position.next_offset} was not in the log, which ends at {high} by now: the "
                "topic was cut or created anew, and what came since is not read; reset the group's offsets once it is "
                "accounted for"
            )
        inside = self._offsets.inside(partition, position, low, high)
        log.warning("position_reset", partition=str(partition), offset=inside.next_offset, error=text_of(error))
        self._progress.advance(partition, inside.next_offset)
        # librdkafka has stopped this partition, and a stopped partition cannot be moved by a seek.
        place = TopicPartition(*partition, inside.next_offset)
        self._open_reader.expect([partition])
        if self._options.cooperative:
            self._open_consumer.incremental_unassign([place])
            self._open_consumer.incremental_assign([place])
        else:
            self._open_consumer.assign([TopicPartition(*one, offset) for one, offset in self.reached.items()])

    def _start_over(self) -> None:
        """Forget everything and join anew: librdkafka may keep some partitions that have other owners by now."""
        if self._all_lost_at is not None and self._fetches - self._all_lost_at <= 1:
            # It took all of them away before it said why. What there is now is assigned anew.
            return
        log.warning("max_poll_exceeded", hint="the fetch loop was held up longer than max.poll.interval.ms")
        self._give_up(tuple(self._progress), lost=True)
        self._open_consumer.unsubscribe()
        self._subscribe(self._open_consumer)

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        self._guarded(self._assign, consumer, [Partition(one.topic, one.partition) for one in assigned])

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        self._guarded(self._unassign, consumer, revoked, lost=False)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        self._guarded(self._unassign, consumer, lost, lost=True)

    def _guarded(self, action: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Keep an exception for `fetch`: raised in a callback, it would destroy the records of the call."""
        try:
            action(*arguments, **options)
        except BaseException as error:
            if self._failure is None:
                self._failure = error

    def _assign(self, consumer: Consumer, partitions: list[Partition]) -> None:
        found: Mapping[Partition, StartPosition] = {}
        self._unowned.moved()
        if partitions:
            self._wait.over()
            self._ended = False
        try:
            # After a failure, and while closing, an assignment is only acknowledged.
            if self._failure is None and self._consumer is not None:
                found = self._resolve(partitions)
        finally:
            places = [TopicPartition(*partition, at.position.next_offset) for partition, at in found.items()]
            self._open_reader.expect(found)
            if self._options.cooperative:
                consumer.incremental_assign(places)
            else:
                consumer.assign(places)
        if not places and partitions:
            return
        self._assigned_once = True
        self._hand_over(consumer, found)

    def _hand_over(self, consumer: Consumer, found: Mapping[Partition, StartPosition]) -> None:
        """Give partitions to the listener, from their positions on; those that it does not take deliver nothing."""
        # A partition that was paused when it was revoked comes back paused.
        consumer.resume([TopicPartition(*partition) for partition in found])
        for partition, at in found.items():
            self._progress.begin(partition, at.position.next_offset, at.end)
        if self._others is not None:
            self._others.moved()
        assert self._listener is not None
        untaken = set(self._listener.on_assigned({partition: at.position for partition, at in found.items()}))
        if untaken:
            # No longer in `_progress`, they are neither resumed nor committed nor given up through the listener.
            self._progress.forget(untaken)
            consumer.pause([TopicPartition(*partition) for partition in untaken])
        fresh = {
            partition: self._committed(partition, at.position)
            for partition, at in found.items()
            if at.chosen and partition not in untaken
        }
        if fresh:
            # From here on the group has a place, whatever --kafka.start says next time. A refusal means that the
            # partitions are about to be lost again; then their next owner decides.
            refused = store(consumer, fresh, FIRST_COMMIT_TIMEOUT_S, self._options.instance)
            for partition, reason in refused.items():
                log.warning("first_commit_refused", partition=str(partition), reason=reason)

    def _resolve(self, partitions: list[Partition]) -> Mapping[Partition, StartPosition]:
        for partition in partitions:
            if self._options.excluded(partition.topic):
                raise ConfigurationError(
                    f"the dead-letter topic {partition.topic} is inside the subscription: change --dlq.topic"
                )
        if not partitions:
            return {}
        assert self._offsets is not None
        # The ids come first: if a topic is created anew between these questions, the next commit finds out.
        self._identity.learn({partition.topic for partition in partitions})
        stored = self._offsets.stored(partitions)
        self._identity.match(stored)
        return self._offsets.resolve(partitions, {partition: at.position for partition, at in stored.items()})

    def _unassign(self, consumer: Consumer, revoked: list[TopicPartition], *, lost: bool) -> None:
        partitions = [Partition(one.topic, one.partition) for one in revoked]
        self._unowned.moved()
        try:
            self._give_up([partition for partition in partitions if partition in self._progress], lost=lost)
        finally:
            if not self._progress:
                self._incidents.topic_in_doubt = True
                self._wait.begin()
                if lost:
                    self._all_lost_at = self._fetches
            self._open_reader.forget(partitions)
            if self._options.cooperative:
                consumer.incremental_unassign(revoked)
            else:
                consumer.unassign()

    def _give_up(self, partitions: Collection[Partition], *, lost: bool) -> None:
        if not partitions:
            return
        assert self._listener is not None
        self._giving_up = True
        try:
            if lost or self._failure is not None:
                self._listener.on_lost(partitions)
            else:
                self._listener.on_revoked(partitions)
        finally:
            self._giving_up = False
            self._progress.forget(partitions)
            if self._others is not None:
                self._others.moved()
            for partition in partitions:
                self._lag.pop(partition, None)
            self._damaged.difference_update(partitions)

    def _look_behind(self) -> None:
        """Check, when nothing comes, for what librdkafka does not report."""
        if self._incidents.topic_in_doubt and time.monotonic() >= self._next_check:
            # The partitions of a deleted topic are taken away, and there is no other sign of it.
            if self._cluster() is not None:
                self._incidents.topic_in_doubt = False
            self._next_check = time.monotonic() + (0.0 if self._absence.in_doubt else CHECK_EVERY_S)

    def _look_for_topics(self) -> None:
        """Look now and then for topics that expressions stand for, and subscribe anew where others came or went."""
        if not self._topics.due():
            return
        cluster = self._cluster()
        if cluster is not None and self._topics.changed(cluster.topics):
            self._identity.doubt()
            self._subscribe(self._open_consumer)

    def _cluster(self) -> Cluster | None:
        """Return what the subscription stands for, None if unknown at the moment; raise SourceLost for what is gone."""
        if self._absence.in_doubt:
            return None
        try:
            found = cluster_of(self._open_consumer.list_topics(timeout=CHECK_TIMEOUT_S), self._options)
        except KafkaException:
            return None
        except ConfigurationError as error:
            if self._absence.lasts():
                raise SourceLost(f"{error}; it was there when reading started") from error
            return None
        self._absence.found()
        return found

    def _look_behind_the_end(self) -> None:
        """Log which records an open transaction keeps from being read, once all others were read."""
        if not self._options.read_committed:
            return
        for partition, (first, end) in sorted(self._admin.unreadable(tuple(self._progress), END_TIMEOUT_S).items()):
            log.warning(
                "records_not_readable_yet",
                partition=str(partition),
                offsets=f"{first}-{end - 1}",
                count=end - first,
                hint="a transaction is open: they are not loaded; run again once it has ended",
            )

    def _committed(self, partition: Partition, position: Position) -> Committed:
        return Committed(position.next_offset, pack(StoredPosition(position, self._identity[partition.topic])))

    def _topics_read(self) -> set[str]:
        return {partition.topic for partition in self._progress}

    def _check_identity(self, topics: Collection[str]) -> None:
        try:
            self._identity.check_for_commit(topics)
        except DataGap as error:
            # Nothing may be committed after it, least of all while the partitions are given up.
            self._failure = self._failure or error
            raise

    def _use_credentials(self, username: str, password: str) -> None:
        self._open_consumer.set_sasl_credentials(username, password)
        self._admin.set_credentials(username, password)

    def _for_owned(self, action: Callable[[list[TopicPartition]], None], partitions: Collection[Partition]) -> None:
        ours = [TopicPartition(*partition) for partition in partitions if partition in self._progress]
        if ours:
            action(ours)

    def _on_statistics(self, document: str) -> None:
        self._guarded(self._lag.update, lag_of(document))

    def _fail(self, error: BaseException) -> NoReturn:
        if self._failure is None:
            if isinstance(error, KafkaException):
                self._failure = SourceLost(f"the Kafka client failed: {error}; start again")
                self._failure.__cause__ = error
            else:
                self._failure = error
        if isinstance(self._failure, BatcherError):
            raise self._failure
        raise self._failure from None


def _close_within(consumer: Consumer, timeout_s: float) -> bool:
    """Close in a thread of its own, which is left behind when it does not return; say whether it did."""
    thread = threading.Thread(target=consumer.close, name="kafka-close", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return not thread.is_alive()
