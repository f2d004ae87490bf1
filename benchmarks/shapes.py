"""Records of several shapes: tiny ones, the usual orders, wide ones with objects and lists inside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from batcher.generate.events import ORDERS, EventGenerator
from benchmarks.orders import COLUMNS

DIFFERENT: Final = 20_000
"""Different records of a shape; they repeat then, far apart enough that no codec sees it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Hold what records look like: a template, the columns of a ClickHouse table, and how many bytes a record has.

    `share` is what the wide shapes have of the records of a run, so that their bytes do not take all of its time.
    """

    template: str
    columns: str
    share: float = 1.0

    def records(self, count: int) -> Iterator[bytes]:
        """Yield so many records, the same in every run."""
        different = EventGenerator(self.template, seed=1).take(min(count, DIFFERENT))
        return itertools.islice(itertools.cycle(different), count)


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


SHAPES: Final[Mapping[str, Shape]] = {
    "tiny": Shape(
        '{"id":{{int 100000000000 999999999999}},"n":{{int 100000 999999}},"ok":true}', "id UInt64, n Int64, ok Bool"
    ),
    "standard": Shape(ORDERS, COLUMNS),
    "wide": _wide(),
}
