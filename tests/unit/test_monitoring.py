"""The dashboard and the alarms show what the process measures, in expressions that Prometheus can read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml

from deploy import monitoring

KNOWN: Final = monitoring.texts()
DASHBOARD: Final[dict[str, Any]] = json.loads(monitoring.DASHBOARD.read_text("utf-8"))
RULES: Final[list[dict[str, Any]]] = yaml.safe_load(monitoring.RULES.read_text("utf-8"))["groups"][0]["rules"]

PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_both_files_are_what_the_script_makes() -> None:
    assert monitoring.main(["--check"]) == 0


def test_a_series_that_no_process_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "SERIES", re.compile("batcher_records_consumed_total"))
    without = {name: text for name, text in KNOWN.items() if name != "batcher_records_consumed_total"}
    with pytest.raises(ValueError, match="no series batcher_records_consumed_total"):
        monitoring.dashboard(without)
    with pytest.raises(ValueError, match="no series batcher_records_consumed_total"):
        monitoring.rules(without)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_expression_of_a_panel_can_be_read_and_keeps_to_the_chosen_processes(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        promql_parser.parse(target["expr"])
        assert target["expr"].count('job=~"$job"') == len(monitoring.SERIES.findall(target["expr"]))
    assert panel["description"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alarm_can_be_read_and_names_the_job(rule: dict[str, Any]) -> None:
    promql_parser.parse(rule["expr"])
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert "$labels.job" in rule["annotations"]["summary"]


def test_what_is_worth_an_alarm_by_the_docs_has_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    worth = text.partition("Worth an alarm:")[2].partition("### ")[0]
    named = set(monitoring.SERIES.findall(worth))
    assert named
    assert named <= {name for rule in RULES for name in monitoring.SERIES.findall(rule["expr"])}


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= monitoring.WIDTH
        assert not cells & taken
        taken |= cells
