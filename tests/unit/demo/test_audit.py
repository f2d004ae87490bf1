from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from batcher.demo.audit import Sums, audit
from batcher.demo.show import Result

PRODUCED = ([0, 1, 2, 3], [0, 1, 2])
LETTER = (1, 2)
ROWS = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1))


def rows(coordinates: Sequence[tuple[int, int]]) -> pa.Table:
    # As ClickHouse gives them: unsigned, in several chunks.
    partitions = pa.chunked_array([[one[0]] for one in coordinates], pa.uint32())
    return pa.table(
        {"_partition": partitions, "_offset": pa.chunked_array([[one[1]] for one in coordinates], pa.uint64())}
    )


def letters(*coordinates: tuple[int, int]) -> list[Mapping[str, object]]:
    return [{"partition": partition, "offset": offset, "reason": "syntax"} for partition, offset in coordinates]


def exit_code(sums: Sums, *, drained: bool = True) -> int:
    return Result(sums, 1, 1, drained, 1.0, Path("kept")).exit_code


def test_every_record_in_one_place_fits() -> None:
    sums = audit(PRODUCED, 1, rows(ROWS), letters(LETTER))

    assert sums == Sums(7, 1, 6, 1, lost=0, duplicated=0, dead_letters_duplicated=0)
    assert exit_code(sums) == 0


def test_copies_of_rows_are_counted_and_end_with_1() -> None:
    sums = audit(PRODUCED, 1, rows([*ROWS, (0, 3), (0, 3), (1, 1)]), letters(LETTER))

    assert (sums.written, sums.duplicated, sums.lost) == (6, 3, 0)
    assert exit_code(sums) == 1


def test_copies_of_dead_letters_are_counted_and_allowed() -> None:
    sums = audit(PRODUCED, 1, rows(ROWS), letters(LETTER, LETTER))

    assert (sums.dead_letters_duplicated, sums.lost) == (1, 0)
    assert exit_code(sums) == 0


@pytest.mark.parametrize(
    ("there", "refused", "lost"),
    [
        pytest.param(ROWS[:-1], (LETTER,), 1, id="a row is missing"),
        pytest.param(ROWS, (), 1, id="a letter is missing"),
        pytest.param([*ROWS[:-1], ROWS[0]], (LETTER,), 1, id="a copy stands for a missing row"),
        pytest.param([*ROWS[:-1], (1, 9)], (LETTER,), 1, id="a row from nowhere stands for a missing one"),
        pytest.param([*ROWS, (1, 9)], (LETTER,), 0, id="a row from nowhere"),
        pytest.param([*ROWS, LETTER], (LETTER,), 0, id="a record in both places"),
        pytest.param(ROWS[:-1], (LETTER, ROWS[-1]), 0, id="a good record refused"),
        pytest.param((), (), 7, id="nothing at all"),
    ],
)
def test_anything_else_is_exit_code_1(
    there: Sequence[tuple[int, int]], refused: Sequence[tuple[int, int]], lost: int
) -> None:
    sums = audit(PRODUCED, 1, rows(there), letters(*refused))

    assert sums.lost == lost
    assert not sums.fits
    assert exit_code(sums) == 1


def test_a_pipeline_that_did_not_drain_is_exit_code_1() -> None:
    assert exit_code(audit(PRODUCED, 1, rows(ROWS), letters(LETTER)), drained=False) == 1
