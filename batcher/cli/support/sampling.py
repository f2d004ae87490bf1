"""What `schema` and `check` have in common: flags, and the sample of records that they look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from batcher.cli.support.loudness import add_loudness, level_for_people, set_up_log
from batcher.cli.support.numbers import whole
from batcher.cli.support.readable import lacking_for_reading, require_readable
from batcher.settings import Loaded, Parser, Settings, UsageError, add_config_flag, load

if TYPE_CHECKING:
    from batcher.preview.sample import Sample
    from batcher.protocols import ReadableLog
    from batcher.records import Partition

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
    require_readable(found.settings, made.prog.removeprefix("batcher "))
    if problems := lacking_for_reading(found.settings):
        raise UsageError(problems)
    set_up_log(found, level_for_people(found.arguments))
    return found


@contextmanager
def log_of(settings: Settings) -> Iterator[tuple[ReadableLog, Sequence[Partition]]]:
    """Open the log for as long as the context is open. No group is joined, and none needs to be named."""
    from batcher.cli.support import wiring

    reader = wiring.reader_of(settings)
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
        topics = ",".join(sorted({one.topic for one in partitions}))
        raise ConfigurationError(f"{topics}: there is no record to look at")
    return found
