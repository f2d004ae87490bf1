"""Records of several shapes: tiny, the usual orders, wide, deep like webhooks, and orders of which some are poison."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from batcher.generate.events import ORDERS, EventGenerator
from benchmarks import hooks
from benchmarks.orders import COLUMNS

DIFFERENT: Final = 20_000
"""Different records of a shape; they repeat then, far apart enough that no codec sees it."""

DOCUMENTS: Final = 2730
"""Different ones of the deep documents."""

SHARE_OF_POISON: Final = 0.001

POISON: Final = (
    b'{"id":"one"}',
    b'{"id":1',
    b'{"id":99999999999999999999}',
    b'{"id":1,"ts":"soon"}',
    b'{"id":1,"id":2}',
    b"not json at all",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Hold what records look like: a template, the columns and the order of a ClickHouse table, and its flags.

    `share` is what the large shapes have of the records of a run, so that their bytes do not take all of its time. Of
    `poisoned` ones, one in a thousand is poison. Without a template they are `hooks.documents`.
    """

    template: str
    columns: str
    share: float = 1.0
    order: str = "id"
    clickhouse_flags: tuple[str, ...] = ()
    poisoned: bool = False

    def records(self, count: int) -> Iterator[bytes]:
        """Yield so many records, the same in every run."""
        if not self.template:
            return itertools.islice(itertools.cycle(hooks.documents(min(count, DOCUMENTS))), count)
        different = EventGenerator(self.template, seed=1).take(min(count, DIFFERENT))
        records = itertools.islice(itertools.cycle(different), count)
        return _with_poison(records) if self.poisoned else records


def _with_poison(records: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the records, one in a thousand of them poison of a kind at random."""
    dice = random.Random(1)  # noqa: S311 - the same records in every run
    for record in records:
        yield dice.choice(POISON) if dice.random() < SHARE_OF_POISON else record


def _wide() -> Shape:
    """Return 60 columns in about 2 KB: 56 plain ones, two objects, a list of numbers and a list of objects."""
    kinds = (
        ("text_{}", '"{{{{choice quay harbour lighthouse}}}} {{{{hex 56}}}}"', "String"),
        ("count_{}", "{{{{int 0 1000000}}}}", "Int64"),
        ("share_{}", "{{{{float 0 1}}}}", "Float64"),
        ("flag_{}", "{{{{bool}}}}", "Bool"),
    )
    fields = ['"id":{{seq}}', '"ts":"{{now}}"']
    columns = ["id UInt64", "ts DateTime64(3, 'UTC')"]
    for number in range(54):
        name, value, kind = kinds[number % len(kinds)]
        fields.append(f'"{name.format(number)}":{value.format()}')
        columns.append(f"{name.format(number)} {kind}")
    fields += [
        '"place":{"city":"{{choice Bergen Turku Cork}}","lat":{{float -90 90 5}},"lon":{{float -180 180 5}}}',
        '"device":{"name":"{{hex 12}}","system":{"family":"{{choice one two three}}","release":{{int 1 20}}}}',
        '"scores":[{{int 0 99}},{{int 0 99}},{{int 0 99}},{{int 0 99}}]',
        '"items":[{"sku":"{{hex 10}}","count":{{int 1 9}}},{"sku":"{{hex 10}}","count":{{int 1 9}}}]',
    ]
    columns += [
        "place Tuple(city String, lat Float64, lon Float64)",
        "device Tuple(name String, system Tuple(family String, release Int64))",
        "scores Array(Int64)",
        "items Array(Tuple(sku String, count Int64))",
    ]
    return Shape("{" + ",".join(fields) + "}", ", ".join(columns), share=0.1)


def _deep() -> Shape:
    """Return webhooks of 11.6 KB; in ClickHouse each object is one text."""
    names = ["repository", "sender", *(f"part_{number}" for number in range(hooks.PARTS))]
    columns = ", ".join(["delivery UInt64", "action String", *(f"{name} Nullable(String)" for name in names)])
    return Shape("", columns, share=0.005, order="delivery", clickhouse_flags=("--decode.text", "any"))


SHAPES: Final[Mapping[str, Shape]] = {
    "tiny": Shape(
        '{"id":{{int 100000000000 999999999999}},"n":{{int 100000 999999}},"ok":true}', "id UInt64, n Int64, ok Bool"
    ),
    "standard": Shape(ORDERS, COLUMNS),
    "wide": _wide(),
    "deep": _deep(),
    "poisoned": Shape(ORDERS, COLUMNS, poisoned=True),
}
