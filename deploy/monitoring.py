"""Make the Grafana dashboard and the Prometheus rules from the metrics that there are.

    python deploy/monitoring.py            write both files
    python deploy/monitoring.py --check    end with 1 where they are not up to date

What a panel explains is the metric's own text. An expression that names a series which the process does not have is
refused, so neither file can fall behind the code.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batcher.telemetry.metrics import Metrics
from batcher.telemetry.status import Status

HERE: Final = Path(__file__).parent
DASHBOARD: Final = HERE / "grafana" / "batcher.json"
RULES: Final = HERE / "prometheus" / "batcher.rules.yaml"

ONLY: Final = '{job=~"$job", instance=~"$instance"}'
"""What the variables of the dashboard leave of a series."""

SERIES: Final = re.compile(r"\b(?:batcher|process)_[a-z_]+\b")

WIDTH: Final = 24
HEIGHT: Final = 8


@dataclass(frozen=True)
class Panel:
    """Draw expressions, by what their lines are called. `ONLY` is put behind each series by itself."""

    title: str
    unit: str
    lines: Mapping[str, str]
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


@dataclass(frozen=True)
class Rule:
    """Raise an alarm when an expression holds for some time."""

    name: str
    expression: str
    lasts: str
    severity: str
    summary: str
    description: str


ROWS: Final[Mapping[str, Sequence[Panel]]] = {
    "Is it well?": (
        Panel("State", "none", {"{{state}}": "sum by (state) (batcher_state) > 0"}, "stat", 4),
        Panel("Guarantee", "none", {"{{guarantee}}": "count by (guarantee) (batcher_delivery_info)"}, "stat", 4),
        Panel("Records behind", "short", {"behind": "sum(batcher_consumer_lag_records)"}, "stat", 4),
        Panel(
            "Time to catch up",
            "s",
            {
                "left": "sum(batcher_consumer_lag_records) / "
                "clamp_min(-deriv(sum(batcher_consumer_lag_records)[5m:15s]), 1)"
            },
            "stat",
            4,
        ),
        Panel("Since the last write", "s", {"ago": "time() - max(batcher_last_write_timestamp_seconds)"}, "stat", 4),
        Panel(
            "Dead letters in an hour",
            "short",
            {"dead letters": "sum(increase(batcher_records_dead_lettered_total[1h]))"},
            "stat",
            4,
        ),
    ),
    "Rows": (
        Panel(
            "Records a second",
            "short",
            {
                "read": "sum(rate(batcher_records_consumed_total[1m]))",
                "written": "sum(rate(batcher_records_written_total[1m]))",
                "dead letters": "sum(rate(batcher_records_dead_lettered_total[1m]))",
                "skipped: {{reason}}": "sum by (reason) (rate(batcher_records_skipped_total[1m])) > 0",
            },
        ),
        Panel("Bytes a second", "Bps", {"read": "sum(rate(batcher_bytes_consumed_total[1m]))"}),
        Panel(
            "Records behind, by partition",
            "short",
            {"{{topic}} {{partition}}": "sum by (topic, partition) (batcher_consumer_lag_records)"},
        ),
    ),
    "Time": (
        Panel(
            "From a record's time to the target",
            "s",
            {
                f"p{share}": f"histogram_quantile(0.{share}, sum by (le) "
                "(rate(batcher_end_to_end_latency_seconds_bucket[5m])))"
                for share in (50, 95, 99)
            },
        ),
        Panel(
            "One batch",
            "s",
            {
                f"{stage} p99": "histogram_quantile(0.99, sum by (le) "
                f"(rate(batcher_{stage}_duration_seconds_bucket[5m])))"
                for stage in ("decode", "write", "flush")
            },
        ),
        Panel(
            "Where the threads spend their time",
            "percentunit",
            {"{{phase}}": "sum by (phase) (rate(batcher_loop_seconds_total[1m]))"},
            stacked=True,
        ),
    ),
    "Batches": (
        Panel(
            "Batches a second, by what cut them",
            "short",
            {"{{trigger}}": "sum by (trigger) (rate(batcher_batches_total[5m]))"},
            stacked=True,
        ),
        Panel(
            "Rows in a batch",
            "short",
            {
                "mean": "sum(rate(batcher_batch_rows_sum[5m])) / sum(rate(batcher_batch_rows_count[5m]))",
                "p99": "histogram_quantile(0.99, sum by (le) (rate(batcher_batch_rows_bucket[5m])))",
            },
        ),
        Panel(
            "Memory for records",
            "bytes",
            {"waiting": "sum(batcher_buffer_bytes)", "limit": "sum(batcher_buffer_limit_bytes)"},
        ),
    ),
    "Trouble": (
        Panel(
            "Tries that failed",
            "short",
            {"{{reason}}": "sum by (reason) (increase(batcher_retries_total[5m]))"},
        ),
        Panel(
            "Dead letters, by reason",
            "short",
            {"{{reason}}": "sum by (reason) (increase(batcher_dead_letter_reasons_total[5m]))"},
        ),
        Panel(
            "Fields that no column takes",
            "short",
            {"{{field}}": "topk(10, sum by (field) (increase(batcher_unknown_fields_total[5m])) > 0)"},
        ),
        Panel(
            "Commits that were not taken",
            "short",
            {"{{outcome}}": 'sum by (outcome) (increase(batcher_commits_total{outcome!="ok"}[5m]))'},
        ),
        Panel("Rebalances", "short", {"{{kind}}": "sum by (kind) (increase(batcher_rebalances_total[5m]))"}),
        Panel(
            "Partitions that are not read",
            "short",
            {"memory is full": "sum(batcher_paused_partitions)", "stopped": "sum(batcher_stopped_partitions)"},
        ),
    ),
    "Process": (
        Panel("CPU", "percentunit", {"{{instance}}": "rate(process_cpu_seconds_total[1m])"}),
        Panel("Resident memory", "bytes", {"{{instance}}": "process_resident_memory_bytes"}),
        Panel("Partitions owned", "short", {"{{instance}}": "batcher_assigned_partitions"}),
    ),
}

ALARMS: Final = (
    Rule(
        "BatcherNotCommitting",
        "sum by (job) (batcher_consumer_lag_records) > 0 and on (job) "
        "(time() - max by (job) (batcher_last_commit_timestamp_seconds) > 300)",
        "5m",
        "critical",
        "batcher {{ $labels.job }} has records to load and has committed nothing for five minutes",
        "What it waits for is in /status under waiting_for, and in its log.",
    ),
    Rule(
        "BatcherFallingBehind",
        "sum by (job) (batcher_consumer_lag_records) > 0 and "
        "deriv(sum by (job) (batcher_consumer_lag_records)[15m:1m]) > 0",
        "30m",
        "warning",
        "batcher {{ $labels.job }} has fallen further behind for half an hour",
        "See where its threads spend their time: a slow target shows as write, a full memory as backpressure.",
    ),
    Rule(
        "BatcherTargetRefuses",
        'increase(batcher_retries_total{reason="SinkMisconfigured"}[10m]) > 0',
        "0m",
        "critical",
        "the target of batcher {{ $labels.job }} cannot work as it is",
        "A table, a right or a setting is missing. Nothing is lost and nothing is loaded; see sink_refused in the log.",
    ),
    Rule(
        "BatcherTargetAway",
        'increase(batcher_retries_total{reason="SinkUnavailable"}[5m]) > 0 and on (job, instance) '
        "(time() - batcher_last_write_timestamp_seconds > 120)",
        "5m",
        "warning",
        "the target of batcher {{ $labels.job }} has not answered for minutes",
        "Records wait in the log, and it tries on.",
    ),
    Rule(
        "BatcherDeadLetters",
        "sum by (job) (increase(batcher_records_dead_lettered_total[15m])) > "
        "0.01 * sum by (job) (increase(batcher_records_consumed_total[15m]))",
        "0m",
        "warning",
        "more than one record in a hundred of batcher {{ $labels.job }} is a dead letter",
        "batcher dlq stats says why; batcher dlq replay loads them again once that is mended.",
    ),
    Rule(
        "BatcherUnknownFields",
        "sum by (job, field) (increase(batcher_unknown_fields_total[1h])) > 0",
        "0m",
        "info",
        "records of batcher {{ $labels.job }} have a field {{ $labels.field }} that no column takes",
        "Add a column, or ignore the field with a schema of your own.",
    ),
    Rule(
        "BatcherPartitionsStopped",
        "batcher_stopped_partitions > 0",
        "5m",
        "critical",
        "batcher {{ $labels.job }} does not read {{ $value }} of its partitions",
        "Their intents cannot be understood, or they have no target: partition_stopped in the log says which.",
    ),
    Rule(
        "BatcherRestarts",
        "changes(process_start_time_seconds[30m]) > 3 and on (job, instance) batcher_assigned_partitions >= 0",
        "0m",
        "warning",
        "batcher {{ $labels.job }} was started again and again",
        "The last line before each end says why; with exit codes 2 and 78 it must not be restarted.",
    ),
)


def texts() -> dict[str, str]:
    """Return every series of a process, with what its metric says about itself."""
    metrics = Metrics("any")
    metrics.watch(lambda: Status("running"))
    found = {}
    for family in metrics.registry.collect():
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
        for end in ends.get(family.type, ("",)):
            found[family.name + end] = family.documentation
    # Of the process itself, where the system tells: not on every machine on which this may run.
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"):
        found.setdefault(name, "Of the process.")
    return found


def unknown(expression: str, known: Mapping[str, str]) -> list[str]:
    """Return the series of an expression that no process has."""
    return [name for name in SERIES.findall(expression) if name not in known]


def selected(expression: str) -> str:
    """Return an expression with the dashboard's variables at each series."""
    narrowed = SERIES.sub(lambda found: found[0] + ONLY, expression)
    return narrowed.replace("}{", ", ")


def dashboard(known: Mapping[str, str]) -> dict[str, Any]:
    """Return the dashboard as Grafana imports it; raise ValueError for a series that no process has."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {"type": "row", "title": title, "id": len(panels) + 1, "collapsed": False, "panels": []}
            | {"gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        )
        y, x = y + 1, 0
        for one in row:
            if x + one.width > WIDTH:
                y, x = y + HEIGHT, 0
            place = {"x": x, "y": y, "w": one.width, "h": HEIGHT}
            panels.append({**_drawn(one, known), "id": len(panels) + 1, "gridPos": place})
            x += one.width
        y += HEIGHT
    return {
        "title": "batcher",
        "uid": "kafka-batcher",
        "tags": ["batcher"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                _variable("job", "label_values(batcher_build_info, job)"),
                _variable("instance", 'label_values(batcher_build_info{job=~"$job"}, instance)'),
            ]
        },
        "panels": panels,
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _drawn(panel: Panel, known: Mapping[str, str]) -> dict[str, Any]:
    series = [name for expression in panel.lines.values() for name in SERIES.findall(expression)]
    strange = [name for name in series if name not in known]
    if strange:
        raise ValueError(f"panel {panel.title!r}: there is no series {strange[0]}")
    custom = {"fillOpacity": 10, "showPoints": "never", "stacking": {"mode": "normal" if panel.stacked else "none"}}
    drawn: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": " ".join(dict.fromkeys(known[name] for name in series)),
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "fieldConfig": {
            "defaults": {"unit": panel.unit} | ({"custom": custom} if panel.kind == "timeseries" else {}),
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + place), "legendFormat": name, "expr": selected(expression)}
            for place, (name, expression) in enumerate(panel.lines.items())
        ],
    }
    if panel.kind == "stat":
        # The state and the guarantee are names; what counts is which there are.
        named = any("{{" in name for name in panel.lines)
        drawn["options"] = {"textMode": "name" if named else "value", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return drawn


def rules(known: Mapping[str, str]) -> str:
    """Return the rules as a file of Prometheus; raise ValueError for a series that no process has."""
    lines = ["# Made by deploy/monitoring.py.", "groups:", "  - name: batcher", "    rules:"]
    for one in ALARMS:
        strange = unknown(one.expression, known)
        if strange:
            raise ValueError(f"rule {one.name}: there is no series {strange[0]}")
        lines += [
            f"      - alert: {one.name}",
            f"        expr: {json.dumps(one.expression)}",
            f"        for: {one.lasts}",
            "        labels:",
            f"          severity: {one.severity}",
            "        annotations:",
            f"          summary: {json.dumps(one.summary)}",
            f"          description: {json.dumps(one.description)}",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the files, or check them."""
    known = texts()
    made = {DASHBOARD: json.dumps(dashboard(known), indent=1) + "\n", RULES: rules(known)}
    if "--check" in arguments:
        stale = [path.name for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
        sys.stderr.writelines(f"{name} is not up to date: python deploy/monitoring.py\n" for name in stale)
        return int(bool(stale))
    for path, text in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
