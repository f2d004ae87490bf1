"""What `schema` and `check` have in common: flags, and the sample of records that they look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from batcher.cli.support.kafka_only import kafka_of
from batcher.cli.support.loudness import add_loudness, level_for_people, set_up_log
from batcher.cli.support.numbers import whole
from batcher.settings import Loaded, Parser, Settings, UsageError, add_config_flag, load
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from batcher.preview.sample import Sample
    from batcher.records import Partition
    from batcher.sources.kafka.window import LogReader

RECORDS: Final = 10_000
"""Records that are looked at unless a person says otherwise: about a second."""


def parser(verb: str, usage: str, description: str, notes: str) -> Parser:
    """Return a parser with the flags of `run` and those for what is looked at."""
    made = Parser(f"batcher {verb}", usage=usage, description=description, epilog=notes)
    add_config_flag(made)
    made.add_argument(
        "-n", "--records", type=whole, default=RECORDS, metavar="N", help=f"records to look at [{RECORDS}]"
    )
    made.add_argument("--json", action="store_true", help="print what was found on stdout as one JSON object")
    add_loudness(made)
    return made


def loaded(made: Parser, argv: Sequence[str]) -> Loaded:
    """Return the settings and flags of a command line, with the log set up as they say. Raise UsageError."""
    made.add_settings()
    found = load(made, list(argv))
    kafka = kafka_of(found.settings, made.prog.removeprefix("batcher "))
    problems = []
    if not kafka.brokers:
        problems.append("--kafka.brokers: which brokers? -b HOST:PORT")
    if not kafka.topics:
        problems.append("--kafka.topics: which topics? -t TOPIC")
    if problems:
        raise UsageError(problems)
    set_up_log(found, level_for_people(found.arguments))
    return found


@contextmanager
def log_of(settings: Settings) -> Iterator[tuple[LogReader, Sequence[Partition]]]:
    """Open the log for as long as the context is open. No group is joined, and none needs to be named."""
    from batcher.cli.support import wiring
    from batcher.sources.kafka.window import LogReader

    kafka = settings.section(Kafka)
    if not kafka.group:
        # librdkafka wants a name, and the reader neither joins nor commits.
        settings = settings.model_copy(update={"kafka": kafka.model_copy(update={"group": "batcher-preview"})})
    reader = LogReader(wiring.kafka_options_of(settings))
    try:
        yield reader, reader.open()
    finally:
        reader.close()


def sample_of(settings: Settings, records: int) -> Sample:
    """Return some records of the topics. Raise ConfigurationError where there is none, and what the log raises."""
    from batcher.errors import ConfigurationError
    from batcher.preview.sample import take

    with log_of(settings) as (reader, partitions):
        found = take(reader, partitions, records)
    if not found.rows:
        topics = ",".join(settings.section(Kafka).topics)
        raise ConfigurationError(f"-t {topics}: there is no record to look at")
    return found
