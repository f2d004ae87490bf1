"""The table in docs/testing.md is the one that the last long run made.

`make test-crash` writes both anew.
"""

import json
from pathlib import Path

import pytest

from tests.harness import crash_score
from tests.harness.census import Census
from tests.harness.verdict import Verdict

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"
SCORE = Path(__file__).with_name("score.json")

VERDICT = Verdict(
    seed=3,
    census=Census([], [], []),
    swapped=0,
    produced=2_010,
    rows=2_000,
    letters=10,
    repeated_letters=1,
    kills=30,
    stops=2,
    rebalances=1,
    replays=9,
    present=5,
    suppressed=700,
)


def test_the_table_of_the_page_is_that_of_the_score() -> None:
    found = crash_score.BLOCK.search(PAGE.read_text())
    assert found is not None
    kept = crash_score.table(json.loads(SCORE.read_text())) if SCORE.exists() else ""
    assert found[0] == kept, "run: make test-crash"


@pytest.mark.skipif(not SCORE.exists(), reason="no long run has been kept yet: make test-crash")
def test_nothing_was_lost_or_duplicated_but_by_the_controls_which_have_to() -> None:
    rows = json.loads(SCORE.read_text())["rows"]
    assert rows
    assert all(row["lost"] == 0 for row in rows)
    assert all((row["duplicated"] > 0) == row["control"] for row in rows)


def test_rows_are_kept_where_the_variable_says_and_come_out_as_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, score, page = tmp_path / "rows", tmp_path / "score.json", tmp_path / "testing.md"
    page.write_text("before\n<!-- score:begin -->\nold\n<!-- score:end -->\nafter\n")
    monkeypatch.delenv(crash_score.VARIABLE, raising=False)
    crash_score.add("nowhere", VERDICT)
    monkeypatch.setenv(crash_score.VARIABLE, str(rows))
    crash_score.add("Parquet", VERDICT, control=True)
    crash_score.add("Parquet", VERDICT)

    assert crash_score.main([str(rows), "--write", str(score), str(page)]) == 0

    line = "30 | 2 | 1 | 2,000 | 0 | 0 | 9 | 5 | 700 |"
    shown = capsys.readouterr().out
    assert f"| Parquet | {line}\n| *control, at-least-once:* Parquet | {line}\n" in shown
    assert "nowhere" not in shown
    assert page.read_text() == f"before\n<!-- score:begin -->\n{shown}<!-- score:end -->\nafter\n"
    assert crash_score.table(json.loads(score.read_text())) == shown


def test_a_page_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="score:begin"):
        crash_score.into_page("# batcher\n", {"rows": []})
