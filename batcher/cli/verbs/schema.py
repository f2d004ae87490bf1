"""`batcher schema`: what the fields of a topic hold, and the table that they need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batcher.cli.support.routed import one_target
from batcher.cli.support.sampling import loaded, parser, sample_of
from batcher.settings import Settings, UsageError

if TYPE_CHECKING:
    from batcher.preview.sample import Sample
    from batcher.preview.shape import Shape
    from batcher.protocols import Format
    from batcher.protocols.proposal import Creatable, Proposal

USAGE: Final = """\
batcher schema -b BROKERS -t TOPIC [-n N] [--write FILE.arrow]
       batcher schema -b BROKERS -t TOPIC --sink clickhouse --clickhouse.table … [--order-by COLUMN[,…]] [--create]\
"""

NOTES: Final = """\
Some of the records are decoded, the oldest and the newest of each partition. Of their values only the form is shown:
every letter is an x, every digit a 9. With a sink that has tables the statement for one is printed, and --create makes
it. Nothing else is changed: no group is joined and no offset is committed.

Exit codes: 0 printed, and made where that was asked for · 2 bad command line · 69 unreachable · 78 no record can be
read, or the table is there already or may not be made.\
"""


def main(argv: Sequence[str]) -> int:
    """Print what the records of topics are like and the table for them, make it if asked, and return 0."""
    made = parser("schema", USAGE, "Show what a topic holds, and make the table for it.", NOTES)
    made.add_argument("--create", action="store_true", help="make the table")
    made.add_argument("--order-by", metavar="COLUMN[,…]", help="what the rows of the table are sorted by [proposed]")
    made.add_argument("--write", metavar="FILE.arrow", help="write the columns to a file for --decode.schema")
    found = loaded(made, argv)
    settings, arguments = one_target(found.settings), found.arguments
    if arguments.write and not arguments.write.endswith(".arrow"):
        raise UsageError([f"--write {arguments.write}: the name has to end in .arrow"])
    if arguments.create and not settings.sink:
        raise UsageError(["--create: in which target? --sink clickhouse --clickhouse.table NAME"])
    sink = _creatable(settings, asked=arguments.create)
    shapes, whole, given, sample = _shapes(settings, arguments.records)
    order = tuple(word.strip() for word in (arguments.order_by or "").split(",") if word.strip())
    proposal = _proposal(settings, whole, sample, order)
    statement = None if sink is None else sink.statement(proposal)
    if sink is not None and arguments.create:
        sink.create(proposal)
    if arguments.write:
        _write(given, arguments.write)
    _show(shapes, statement, created=arguments.create, as_json=arguments.json)
    return 0


def _creatable(settings: Settings, *, asked: bool) -> Creatable | None:
    """Return the sink where it can make its target. Raise ConfigurationError where that was asked for and it cannot."""
    if not settings.sink:
        return None
    from batcher.cli.support import wiring
    from batcher.errors import ConfigurationError
    from batcher.protocols.proposal import Creatable
    from batcher.settings.compose import section_of

    _, section = section_of(settings, "sink")
    if section is not None and any(True for _ in section.lacking()) and not asked:
        return None
    sink = wiring.sink_of(settings)
    if isinstance(sink, Creatable):
        return sink
    if asked:
        raise ConfigurationError(
            f"--create: --sink {settings.sink} makes its target itself, with the first batch; --write FILE.arrow keeps "
            "the columns for --decode.schema"
        )
    return None


def _proposal(settings: Settings, whole: Shape, sample: Sample, order: tuple[str, ...]) -> Proposal:
    """Return what the target has to be like, as far as records or a transform say it. Raise ConfigurationError."""
    from batcher.cli.support import wiring
    from batcher.protocols.transform import Proposing

    proposal = whole.proposal(order)
    transform = wiring.transform_of(settings)
    if transform is None or not isinstance(transform, Proposing):
        return proposal
    return transform.proposal(proposal, sample.batch)


def _shapes(settings: Settings, records: int) -> tuple[list[Shape], Shape, Shape, Sample]:
    """Return the shape of each topic, that of all together, what --decode.schema may say of it, and the records.

    Raise ConfigurationError where nothing can be read.
    """
    from batcher.cli.support import wiring
    from batcher.errors import ConfigurationError
    from batcher.preview.shape import shape_of

    sample, format_ = sample_of(settings, records), wiring.format_of(settings)
    whole = shape_of(sample, format_)
    if whole is None:
        raise ConfigurationError(
            f"none of {sample.rows:,} records can be read as --decode.format {settings.decode.format}: "
            "`batcher peek` shows them"
        )
    given = shape_of(sample, _before(settings)) if wiring.transforms(settings) else whole
    assert given is not None
    if len(sample.topics) == 1:
        return [whole], whole, given, sample
    parts = [shape_of(sample.of_topic(topic), format_) for topic in sample.topics]
    return [part for part in parts if part is not None], whole, given, sample


def _before(settings: Settings) -> Format:
    """Return what reads the columns that --decode.schema states: those before any transform.

    A transform with a way of its own to read records is told the columns that it makes.
    """
    from batcher.cli.support import wiring
    from batcher.protocols.transform import Adapting

    alone = {"select": None, "where": None, "python": None}
    first = settings.model_copy(update={"transform": settings.transform.model_copy(update=alone)})
    transform = wiring.transform_of(first)
    own = transform is not None and isinstance(transform, Adapting)
    return wiring.format_of(first) if own else wiring.encoding_of(settings)


def _write(shape: Shape, file: str) -> None:
    import pyarrow as pa

    from batcher.errors import ConfigurationError

    try:
        with Path(file).open("xb") as out, pa.ipc.new_stream(out, shape.columns):
            pass
    except FileExistsError as error:
        raise ConfigurationError(f"--write {file}: is there already") from error
    except OSError as error:
        raise ConfigurationError(f"--write {file}: {error.strerror}") from error


def _show(shapes: Sequence[Shape], statement: str | None, *, created: bool, as_json: bool) -> None:
    from batcher.preview.report import facts, lines

    if as_json:
        told = {"topics": [facts(shape) for shape in shapes], "statement": statement, "created": created}
        print(json.dumps(told), flush=True)
        return
    for shape in shapes:
        for line in lines(shape):
            print(line)
        print()
    if statement is not None:
        print(f"{statement};")
        print(f"\n{'created' if created else 'made with --create, or by hand after changing it'}")
    print(end="", flush=True)
