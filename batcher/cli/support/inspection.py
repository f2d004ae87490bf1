"""What `verify` and `repair` have in common: flags, the parts they open, and the check of every partition."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.loudness import add_loudness, log_level, set_up_log
from batcher.cli.support.readable import require_readable
from batcher.cli.support.tuning import tune_collector, tune_memory
from batcher.plugins import registry_of
from batcher.settings import Loaded, Parser, Settings, UsageError, add_config_flag, load
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    import pyarrow as pa

    from batcher.audit.auditor import Account, Auditor, Letters
    from batcher.audit.fields import Survey
    from batcher.audit.report import AuditReport
    from batcher.audit.scope import Scope
    from batcher.engine.retry import RetryPolicy
    from batcher.protocols import Auditable, ReadableLog, Sink, SinkInfo
    from batcher.records import Partition

PATIENCE_S: Final = 60.0
"""How long a target that does not answer is asked again where --retry.max-elapsed is not given: people wait."""


def parser(verb: str, usage: str, description: str, notes: str) -> Parser:
    """Return a parser with the flags of `run` and those that choose what is checked."""
    made = Parser(f"batcher {verb}", usage=usage, description=description, epilog=notes)
    add_config_flag(made)
    made.add_argument("--from", dest="start", metavar="OFFSET|TIME", help="begin here [where the log begins]")
    made.add_argument(
        "--to",
        dest="end",
        metavar="OFFSET|TIME",
        help="end before this [the committed offset; never beyond it]",
    )
    made.add_argument(
        "--partition", action="append", default=[], metavar="N[,…]", help="only these partitions; may be repeated"
    )
    made.add_argument("--json", action="store_true", help="print what was found on stdout as one JSON object")
    add_loudness(made)
    return made


def loaded(made: Parser, argv: Sequence[str]) -> Loaded:
    """Return the settings and flags of a command line, with the log set up as they say. Raise UsageError."""
    made.add_settings()
    found = load(made, list(argv), runnable=True)
    require_readable(found.settings, made.prog.removeprefix("batcher "))
    queue = found.settings.dlq.queue
    if queue not in (None, *registry_of("dead-letter queue").built_in):
        raise UsageError([f"--dlq.queue {queue}: only dead letters in topics and directories can be looked up"])
    set_up_log(found, log_level(found.settings, found.arguments))
    return found


@dataclass(frozen=True, slots=True)
class Inspection:
    """Hold the open parts, and what has to be checked."""

    settings: Settings
    sink: Sink
    info: SinkInfo
    target: Auditable
    reader: ReadableLog
    scopes: Sequence[Scope]
    attempt: Callable[..., Any]

    def auditor(self) -> Auditor:
        """Return the auditor of windows, with the dead letters that there are now."""
        from batcher.audit.auditor import Auditor
        from batcher.cli.support import wiring

        skips = self.settings.decode.tombstones == "skip"
        filtered = None
        if wiring.transforms(self.settings):
            from batcher.audit.filtered import FilteredRecords

            filtered = FilteredRecords(self.reader, wiring.format_of(self.settings), self._schema_of).among
        return Auditor(
            self.reader,
            self.target,
            letters_of(self.settings),
            skips_tombstones=skips,
            attempt=self.attempt,
            filtered=filtered,
        )

    def report(self) -> AuditReport:
        """Check everything. Raise as the parts do."""
        from batcher.audit.report import AuditReport
        from batcher.cli.support import wiring
        from batcher.protocols.sink import queryable

        auditor = self.auditor()
        accounts = [auditor.account(scope) for scope in self.scopes]
        survey = self._survey()
        for account in accounts:
            survey.look(account.scope, account.records)
        beyond: dict[Partition, int] = {}
        target = queryable(self.sink, self.info)
        if target is not None:
            beyond = self.attempt(target.max_offset_above, {one.partition: one.next_offset for one in self.scopes})
        return AuditReport(
            self.info.target,
            wiring.name_of(self.settings),
            tuple(self._compared(auditor, one, beyond.get(one.scope.partition)) for one in accounts),
            survey.fields(),
        )

    def _compared(self, auditor: Auditor, account: Account, beyond: int | None) -> Account:
        """Return an account with what target and dead letters have after the log's end."""
        scope = account.scope
        letters = auditor.letters_from(scope.partition, scope.log_next)
        if letters is not None or (beyond is not None and beyond >= scope.log_next):
            # A running pipeline goes on meanwhile, and so does the log.
            scope = replace(scope, log_next=self.reader.watermarks(scope.partition)[1])
            letters = auditor.letters_from(scope.partition, scope.log_next)
        return replace(account, scope=scope, beyond=beyond, letters_beyond=letters)

    def _survey(self) -> Survey:
        """Return the survey of records. With `--decode.on-unknown ignore` it is not wanted, and checks none."""
        from batcher.audit.fields import PLACES, Survey
        from batcher.cli.support import wiring

        asked = self.settings.decode.on_unknown != "ignore"
        # Even so, many partitions make many places.
        places = max(4, PLACES // len(self.scopes))
        schema_of = self._schema_of if asked else lambda _: None
        format_ = wiring.format_of(self.settings)
        return Survey(self.reader, format_, schema_of, by_topic=self.info.by_topic, places=places)

    def _schema_of(self, topic: str) -> pa.Schema | None:
        from batcher.protocols.sink import topic_pinning

        topics = topic_pinning(self.sink, self.info)
        if topics is not None:
            found: pa.Schema | None = self.attempt(topics.schema_of, topic)
            return found
        return self.info.schema


@contextmanager
def inspecting(settings: Settings, arguments: argparse.Namespace) -> Iterator[Inspection]:
    """Open target and log and choose what is checked, for as long as the context is open.

    Raise ConfigurationError, Unreachable or SinkMisconfigured, the last also where the target cannot be asked.
    """
    from batcher.audit.scope import bound_of, scopes_of
    from batcher.cli.support import wiring
    from batcher.errors import SinkMisconfigured, SinkUnavailable
    from batcher.protocols.sink import countable

    tune_collector()
    tune_memory()
    start = None if arguments.start is None else bound_of("--from", arguments.start)
    end = None if arguments.end is None else bound_of("--to", arguments.end)
    numbers = numbers_of(arguments.partition)
    sink, reader = wiring.sink_of(settings), wiring.reader_of(settings)
    with ExitStack() as stack:
        stack.callback(sink.close)
        info = sink.open()
        target = countable(sink, info)
        if target is None:
            raise SinkMisconfigured(f"{info.target}: a sink of this kind cannot be asked which records it holds")
        stack.callback(reader.close)
        partitions = partitions_of(reader.open(), numbers)
        scopes = scopes_of(reader, partitions, start, end)
        # A target that refuses is asked only once.
        attempt = retry_of(settings).retrying(threading.Event(), lambda *_: None, errors=(SinkUnavailable,))
        yield Inspection(settings, sink, info, target, reader, scopes, attempt)


def retry_of(settings: Settings) -> RetryPolicy:
    """Return the waits of the settings, with an end."""
    from batcher.cli.support import wiring

    return wiring.retry_of(settings, PATIENCE_S)


def letters_of(settings: Settings) -> Letters:
    """Return where the dead letters of the group came from; none where the settings name no place for them."""
    from batcher.audit.dead_letters import in_directory, in_topic
    from batcher.cli.support import wiring
    from batcher.sources.kafka.options import KafkaOptions
    from batcher.sources.kafka.window import LogReader

    group = wiring.name_of(settings)
    if settings.dlq.path:
        return in_directory(settings.dlq.path, group)
    if settings.dlq.topic:
        kafka = settings.section(Kafka)
        options = KafkaOptions(
            brokers=kafka.brokers or "",
            topics=(settings.dlq.topic,),
            group=group,
            properties=kafka.options,
            allow_insecure=kafka.allow_insecure,
        )
        return in_topic(LogReader(options), group)
    return {}


def numbers_of(given: Sequence[str]) -> frozenset[int]:
    """Return the numbers of `--partition`. Raise UsageError."""
    words = [word.strip() for text in given for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise UsageError(["--partition: needs numbers, such as 0 or 0,3"])
    return frozenset(map(int, words))


def partitions_of(partitions: Sequence[Partition], numbers: frozenset[int]) -> Sequence[Partition]:
    """Return the partitions with these numbers, all without any. Raise ConfigurationError for one that is not there."""
    from batcher.errors import ConfigurationError

    chosen = [one for one in partitions if not numbers or one.number in numbers]
    absent = sorted(numbers - {one.number for one in partitions})
    if absent or not chosen:
        what = f"--partition {absent[0]}: there is no such partition" if absent else "-t: there is no such topic"
        raise ConfigurationError(f"{what}; {len(partitions)} partitions were found")
    return chosen
