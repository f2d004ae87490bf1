"""The pages for people say what the program does: tables are compared with the code, commands are run.

`python tests/test_docs.py --update` writes the table of flags into docs/reference.md, and those of the benchmark into
the README and docs/performance.md.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

import tests.harness
from batcher import errors
from batcher.cli.main import main as command_line
from batcher.cli.support.outcome import INTERRUPTED
from batcher.cli.verbs import VERBS
from batcher.cli.verbs.run import parser, summary_facts
from batcher.core.offsets import Offsets
from batcher.dead_letters.encoding import added_headers, now, to_fields
from batcher.embedded.nsq import Nsqd
from batcher.engine.report import Summary
from batcher.engine.writer import _ALARMS
from batcher.errors import SinkUnavailable
from batcher.plugins import registries
from batcher.records import DeadLetter, Delivered, Partition, Position, Record
from batcher.settings import Row, UsageError, load, reference
from batcher.settings.compose import compose
from batcher.sources.kafka.metadata import StoredPosition, pack, unpack
from batcher.telemetry.events import BatchWritten, GuaranteeAgreed, RecordsFetched, WriteRetried
from batcher.telemetry.metrics import Metrics
from batcher.telemetry.status import PartitionStatus, Status, TargetStatus
from batcher.testing.clickhouse import ClickHouseServer, embedded_engine_missing
from batcher.testing.kafka import Broker
from batcher.testing.values import make_batch, make_records
from benchmarks.readme import IN_README, table
from sinks.clickhouse.errors import RULES, rule_for
from sinks.clickhouse.options import PINNED_SETTINGS
from sinks.handler.sink import HandlerSink
from sinks.lake.metric import CommitTimes
from tests.harness.pages import DOCS, README, ROOT, code_blocks
from tests.harness.processes import run_shell

REFERENCE = DOCS / "reference.md"
PERFORMANCE = DOCS / "performance.md"
PYTHON = DOCS / "python.md"
PLUGINS = DOCS / "plugins.md"
OPERATIONS = DOCS / "operations.md"
SQS = "http://localhost:9324"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [README, *sorted(DOCS.glob("*.md")), CONTRIBUTING, ROOT / "CHANGELOG.md"]
README_LINES = 150
PLUGGED = ROOT / "tests" / "plugins_outside"
SINK_AUTHOR = ROOT / "tests" / "typing" / "sink_author.py"

BENCH = re.compile(r"(?<=<!-- bench:begin -->\n).*?(?=<!-- bench:end -->)", re.DOTALL)
FLAGS = re.compile(r"(?<=<!-- flags:begin -->\n).*?(?=<!-- flags:end -->)", re.DOTALL)

PLUG_INS = "# Plug-ins: sources, formats, sinks and dead-letter queues of your own"

# Blocks that are not run, by their first two words, each for its reason. Docker is mentioned in the text only.
NOT_RUN = {
    "pip install": "changes the environment of the tests, and sets up another; the demo has tests of its own",
    "make setup": "sets up another virtual environment",
}

# Flags of other programs that pages show, and whose they are.
FOREIGN_FLAGS = {
    "--rm": "docker",
    "--network": "docker",
    "--wait": "docker compose",
    "--profile": "docker compose",
    "--build": "docker compose",
    "--build-arg": "docker",
    "--locked": "cargo",
    "--no-default-features": "cargo",
    "--skip": "cargo test",
    "--target": "cargo",
    "--release": "maturin",
    "--manylinux": "maturin",
    "--user": "curl",
    "--fail": "curl",
    "--data-binary": "curl",
    "--strict": "mypy",
    "--only": "a benchmark",
    "--update": "this file",
}


def rows() -> list[Row]:
    """Return every setting there is, with those of the plug-ins on the page about them."""
    sys.path.append(str(PLUGGED))
    try:
        named = ("source", "files:files"), ("decode.format", "bars:Bars"), ("sink", "lines:Lines")
        return list(reference(compose((*named, ("dlq.queue", "shelf:Shelf")))))
    finally:
        sys.path.remove(str(PLUGGED))


def blocks_in(page: Path, *languages: str) -> list[str]:
    return [block for _, block in code_blocks(page, *languages)]


def first_words(block: str) -> str:
    return " ".join(block.split()[:2])


def blocks_to_run(page: Path) -> list[str]:
    """Return the blocks of a page as shell, in their order: on the page about Python its examples are programs."""
    if page != PYTHON:
        return [block for block in blocks_in(page, "sh") if first_words(block) not in NOT_RUN]
    found = code_blocks(page, "sh", "python")
    return [block if language == "sh" else f"python - <<'END'\n{block}END\n" for language, block in found]


NEEDS_MORE = {"top": "a process that runs on", "completion": "an extra, and a shell that is set up"}
"""Verbs that are not run as a block of a page, with what they need; both have tests of their own."""


def test_each_task_is_done_by_a_command_that_its_page_has_run() -> None:
    page = DOCS / "tasks.md"
    rows = table_rows(page, "# What do you want to do?")
    assert len(rows) >= 25
    for task, how, more in rows:
        pages = [(DOCS / link).resolve() for link in re.findall(r"\(([^)#]+\.md)", more)]
        assert pages, task
        run = "\n".join(block for one in pages for block in blocks_to_run(one))
        for verb in re.findall(r"`batcher ((?:dlq |config )?[a-z]+)\b", how):
            assert verb in NEEDS_MORE or re.search(rf"\bbatcher {verb}\b", run), (task, verb)


def table_rows(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its two head lines."""
    section = f"\n{page.read_text()}".partition(f"\n{heading}\n")[2]
    table = re.search(r"(?:^\|.*\|\n)+", section, re.MULTILINE)
    assert table is not None, f"no table below {heading}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def flag_table() -> str:
    lines = ["| Flag | Default | Meaning |", "|---|---|---|"]
    for row in reference():
        names = ", ".join(f"`{name}`" for name in (row.short, row.flag) if name)
        takes = "" if row.kind == "switch" else f" `{row.type}`".replace("|", "\\|")
        default = f"`{row.default}`" if row.default and row.kind != "switch" else ""
        lines.append(f"| {names}{takes} | {default} | {row.help.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize(("page", "made"), [(README, table(IN_README)), (PERFORMANCE, table())], ids=["README", "page"])
def test_a_table_of_the_benchmark_is_the_one_its_results_make(page: Path, made: str) -> None:
    found = BENCH.search(page.read_text())
    assert found is not None
    assert found[0] == made, "run: python tests/test_docs.py --update"


def test_the_readme_has_five_rows_of_the_benchmark() -> None:
    rows = table(IN_README).splitlines()
    assert len([row for row in rows if row.startswith("| ")]) == 1 + 5
    assert set(rows) <= set(table().splitlines())


def test_the_table_of_flags_is_the_one_the_settings_make() -> None:
    found = FLAGS.search(REFERENCE.read_text())
    assert found is not None
    assert found[0] == flag_table(), "run: python tests/test_docs.py --update"


def test_help_names_every_flag_with_its_variable() -> None:
    text = parser().format_help()
    for row in reference():
        assert re.search(rf"{re.escape(row.flag)}(?![\w.-])", text), row.flag
        assert f"${row.env}" in text, row.env


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_on_a_page_is_one_of_the_program(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = {row.flag for row in rows()} | FOREIGN_FLAGS.keys()
    for verb in VERBS:
        argv = [verb, "show", "--help"] if verb == "config" else [verb, "--help"]
        assert command_line(argv) == 0
    known |= set(re.findall(r"--[a-z][a-z.-]+", capsys.readouterr().out))
    # A switch has a second form, which help leaves out.
    known |= {f"--no-{flag.removeprefix('--')}" for flag in known}
    # `--dlq.*` stands for all flags of a section.
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*\b(?!\.\*)(?![a-z])", page.read_text()))
    assert used - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_on_a_page_is_a_setting(page: Path) -> None:
    known = {row.env for row in rows()} | {f"{row.env}_FILE" for row in rows()}
    known |= {"BATCHER_CONFIG"}
    used = {name for name in re.findall(r"BATCHER_[A-Z_]+", page.read_text()) if not name.startswith("BATCHER_TEST_")}
    assert used - known == set()


def test_every_metric_is_documented_and_every_documented_metric_is_there() -> None:
    metrics = Metrics("null")
    metrics.watch(lambda: Status("running", measures=MEASURED))
    suffixes = {"counter": "_total", "info": "_info"}
    exposed = {
        family.name + suffixes.get(family.type, "")
        for family in metrics.registry.collect()
        if family.name.startswith("batcher_")
    }
    table = table_rows(OPERATIONS, "### Metrics")
    documented = [re.findall(r"batcher_\w+", cells[0])[0] for cells in table]
    assert sorted(documented) == sorted(exposed)
    for page in PAGES:
        assert set(re.findall(r"\bbatcher_[a-z_]+\b", page.read_text())) <= exposed, page.name


MEASURED = (*HandlerSink("mail:handle").measures(), *CommitTimes().measures("Versions of the table."))
"""What sinks measure of themselves."""


def exercised() -> Metrics:
    """Return metrics of which each has a sample for each value that its labels can have, where these are few."""
    metrics = Metrics("null")
    partition = Partition("t", 0)
    targets = {"t": TargetStatus("a table", "exactly-once")}
    status = Status("running", partitions={partition: PartitionStatus(lag=1)}, targets=targets, measures=MEASURED)
    metrics.watch(lambda: status)
    metrics(GuaranteeAgreed("exactly-once"))
    metrics(RecordsFetched(make_records(["1"], partition=partition)))
    metrics(WriteRetried(SinkUnavailable("away")))
    delivered = Delivered(
        rows=6,
        written=0,
        suppressed=0,
        dead_lettered=2,
        skipped=4,
        refused_by_sink=1,
        nbytes=1,
        decode_s=0,
        write_s=0,
        reasons={"syntax": 1},
        unknown_fields={"city": 1},
        dropped=1,
        filtered=1,
        paused=1,
    )
    metrics(BatchWritten(make_batch(make_records(["1"])), delivered))
    return metrics


OPEN_LABELS = {"topic", "partition", "sink", "target", "field", "guarantee"}
"""Their values come from the data or the settings."""

EXAMPLES = {"batcher_dead_letter_reasons_total", "batcher_retries_total"}
"""Their reasons are open: the page has some at most."""


def test_labels_of_metrics_and_their_values_are_those_of_the_pages() -> None:
    found: dict[str, dict[str, set[str]]] = {}
    for family in exercised().registry.collect():
        for sample in family.samples:
            labels = found.setdefault(family.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    for cells in table_rows(OPERATIONS, "### Metrics"):
        [name] = re.findall(r"batcher_\w+", cells[0])
        labels = found[re.sub(r"_(total|info)$", "", name)]
        labels.pop("le", None)
        assert set(re.findall(r"\w+", cells[1])) == set(labels), name
        closed = [label for label in labels if label not in OPEN_LABELS and not name.endswith("_info")]
        words = set(re.findall(r"`(\w+)`", cells[2]))
        for label in closed:
            assert words == labels[label] or name in EXAMPLES, (name, label)


def test_the_keys_of_the_summary_are_those_of_the_page() -> None:
    summary = Summary(0, 0, 0, 0, 0, 0, 0, 0.0, "exactly-once")
    rows = table_rows(OPERATIONS, "### The summary")
    documented = [key for cells in rows for key in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(documented) == sorted(summary_facts(summary, 0))


def test_the_warnings_and_errors_of_the_log_are_those_of_their_page() -> None:
    others = "All other warnings and errors of a run and of `repair`:"
    rows = [*table_rows(OPERATIONS, "### Logs"), *table_rows(OPERATIONS, others)]
    documented = [event for cells in rows for event in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(documented) == sorted(warnings_in_code())


def warnings_in_code() -> set[str]:
    """Return the events that are logged as warnings and errors; a message of several words is no event."""
    found = {"thread_failed", "sink_unavailable", *_ALARMS.values()}  # their calls do not have level or name
    for file in (*(ROOT / "batcher").rglob("*.py"), *(ROOT / "sinks").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(ast.Attribute(attr="warning" | "error"), [ast.Constant(str(text)), *_]):
                    found |= {text} if text.isidentifier() else set()
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_default_in_parentheses_behind_its_flag_is_the_default(page: Path) -> None:
    defaults = {row.flag: row.default for row in reference()}
    for flag, text in re.findall(r"`(--[a-z.-]+)`\s+\(([^)`]+)\)", page.read_text()):
        assert re.split(r"[;,]", text)[0].replace(" ", "") == defaults[flag], flag


def test_settings_and_error_codes_of_clickhouse_are_those_of_the_sink() -> None:
    page = DOCS / "clickhouse.md"
    assert [name for name in PINNED_SETTINGS if f"`{name}" not in page.read_text()] == []
    reactions = ("retry", "halt", "poison", "suspect", "done")
    for cells, reaction in zip(table_rows(page, "## Errors"), reactions, strict=True):
        text = cells[1].replace("HTTP 429 and 5xx", "").replace("252 too many *partitions*", "")
        codes = [int(code) for code in re.findall(r"\d+", text)]
        assert codes
        assert {rule_for(code).reaction for code in codes} == {reaction}
        assert [code for code in codes if code not in RULES] == []


def test_fields_and_headers_of_dead_letters_are_those_that_are_stored() -> None:
    page = DOCS / "dead-letters.md"
    letter = DeadLetter(Record(Partition("t", 0), 1, 2, None, b"{"), "decode", "syntax", "not JSON")
    fields = {name for cells in table_rows(page, "## In a directory") for name in re.findall(r"`(\w+)`", cells[0])}
    stored = to_fields(letter, "g", now()).keys()
    assert fields == stored - {"key_encoding", "value_encoding"}
    rows = [re.findall(r"`([\w.]+)`", cells[0]) for cells in table_rows(page, "## In a topic")]
    headers = {name if name[0] != "." else f"__connect.errors{name}" for names in rows for name in names}
    assert headers == {name for name, _ in added_headers(letter, "g", now())}


def test_the_metadata_of_an_offset_on_its_page_is_what_is_committed() -> None:
    """A process that was just given the partition has cut two batches there, and commits their intents."""
    [shown] = re.findall(r'^    (\{"t":"(.+?)"\}.*)$', (DOCS / "exactly-once.md").read_text(), re.MULTILINE)
    text, topic_id = shown
    partition = Partition("events", 0)
    offsets = Offsets("events-to-parquet", announces=True, writer="5e1f09")
    offsets.assign({partition: Position(1000)})
    for first, timestamp_ms in ((1000, 1763700000000), (2000, 1763700001000)):
        records = make_records(["{}"] * 1000, partition=partition, first_offset=first, timestamp_ms=timestamp_ms)
        offsets.admit(records)
        offsets.begin(make_batch(records))
    committed = StoredPosition(offsets.wanted()[partition], topic_id)
    assert pack(committed) == text
    assert unpack(partition, 1000, text) == committed


def test_the_verbs_of_the_page_are_those_of_the_program() -> None:
    assert [cells[0].strip("`") for cells in table_rows(REFERENCE, "## Verbs")] == list(VERBS)


def test_what_sinks_may_import_is_what_contributing_says() -> None:
    [named] = re.findall(r"Sinks\s+import (.*?), nothing else", CONTRIBUTING.read_text(), re.DOTALL)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers, forbidden = (
        next(one for one in contracts if one.get(key) == [whose])
        for key, whose in (("containers", "batcher"), ("source_modules", "sinks"))
    )
    rooms = {f"batcher.{room}" for layer in layers["layers"] for room in layer.split(" | ") if room != "__main__"}
    assert set(re.findall(r"`([\w.]+)`", named)) == rooms - set(forbidden["forbidden_modules"])


def test_the_docstring_of_the_harness_lists_its_modules() -> None:
    listed = re.findall(r"^    (\w+) ", tests.harness.__doc__ or "", re.MULTILINE)
    modules = {file.stem for file in Path(tests.harness.__file__).parent.glob("*.py")}
    assert sorted(listed) == sorted(name for name in modules if not name.startswith(("_", "test_")))


def test_exit_codes_are_those_of_the_code() -> None:
    codes = {kind.exit_code for kind in subclasses(errors.BatcherError)} | {errors.BatcherError.exit_code}
    codes |= {0, INTERRUPTED, UsageError([]).exit_code}
    assert {int(cells[0]) for cells in table_rows(REFERENCE, "## Exit codes")} == codes


HANDLED = {
    errors.BatchSuperseded,
    errors.BlockRejected,
    errors.CommitRefused,
    errors.RowsRejected,
    errors.SchemaChanged,
}
"""What a part raises and the engine answers: no run ends with them."""


def test_each_error_that_a_run_can_end_with_is_on_the_page_about_python() -> None:
    cells = [row[0] for row in table_rows(PYTHON, "## Errors")]
    named = {getattr(errors, name) for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert not named & HANDLED
    covered = named.union(*(subclasses(kind) for kind in named))
    assert set(subclasses(errors.BatcherError)) - HANDLED == covered


def subclasses(kind: type[errors.BatcherError]) -> Iterator[type[errors.BatcherError]]:
    for one in kind.__subclasses__():
        if one.__module__ == errors.__name__:
            yield one
            yield from subclasses(one)


def test_the_sink_of_the_page_about_python_is_the_tested_one() -> None:
    (block,) = (one for one in blocks_in(PYTHON, "python") if "class LinesSink" in one)
    tested = SINK_AUTHOR.read_text()
    (shown,), (run,) = class_sources(block), class_sources(tested)
    assert shown == run
    other = block.replace(shown, "").split("\n")
    assert [line for line in other if line not in tested.split("\n")] == []


def test_the_sink_of_the_readme_has_the_methods_it_says_in_twenty_lines() -> None:
    """The laws of every sink are run on it in `tests/contract`; it loads a topic where the page's commands are run."""
    (block,) = blocks_in(README, "python")
    (made,) = (one for one in ast.parse(block).body if isinstance(one, ast.ClassDef))
    methods = [one.name for one in made.body if isinstance(one, ast.FunctionDef)]
    assert methods == ["__init__", "open", "pin", "write", "close"]
    assert len([line for line in block.splitlines() if line]) == 20


def test_the_plug_ins_of_their_page_are_the_tested_ones() -> None:
    blocks = blocks_in(PLUGINS, "python")
    tested = [path.read_text() for path in PLUGGED.glob("*.py") if not path.name.startswith("test_")]
    assert sorted(blocks) == sorted(tested)


def test_the_kinds_of_plug_ins_are_those_of_the_page() -> None:
    def codes(cell: str) -> list[str]:
        return re.findall(r"`([^`]+)`", cell)

    found = {cells[0]: [codes(cell) for cell in cells[1:]] for cells in table_rows(PLUGINS, PLUG_INS)}
    for registry in registries():
        flag, group, names, methods = found.pop(registry.kind)
        assert (flag, group, sorted(names)) == ([registry.flag], [registry.group], registry.names())
        assert tuple(methods) == registry.methods
    assert found == {}


def class_sources(text: str) -> list[str]:
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    return [ast.get_source_segment(text, node) or "" for node in classes]


def test_the_toml_of_the_reference_is_taken_without_a_warning(tmp_path: Path) -> None:
    (block,) = blocks_in(REFERENCE, "toml")
    file = tmp_path / "batcher.toml"
    file.write_text(block)
    loaded = load(parser(), ["-c", str(file)], {}, runnable=True)
    assert loaded.warnings == ()
    assert loaded.settings.batch.max_rows == tomllib.loads(block)["batch"]["max_rows"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: GitHub's for headings, and explicit ones."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_directory_of_one_machine(page: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:work|tmp|root|home|Users)/", page.read_text()) == []


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)", README.read_text()))
    assert {str(page.relative_to(ROOT)) for page in PAGES if page != README} <= linked


def test_what_is_not_run_is_on_a_page() -> None:
    assert {first_words(block) for page in PAGES for block in blocks_in(page, "sh")} >= NOT_RUN.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_has_made_is_a_target_of_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    used = {
        *re.findall(r"`make ([a-z-]+)", text),
        *(target for block in blocks_in(page, "sh") for target in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE)),
    }
    assert used <= targets


def test_each_page_runs_its_commands_in_sh_and_shows_none_in_console() -> None:
    assert [page.name for page in PAGES if blocks_in(page, "console", "bash", "shell")] == []


@pytest.fixture(scope="module")
def clickhouse_of_the_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """Return a server with the user of docker-compose.yml."""
    reason = embedded_engine_missing()
    if reason:
        pytest.skip(reason)
    with ClickHouseServer(tmp_path_factory.mktemp("pages"), users={"batcher": "local-only"}) as server:
        yield server


@pytest.fixture
def server_of_sqs(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return what starts the server that speaks SQS and says where it answers: one page needs it."""
    return lambda: str(request.getfixturevalue("elasticmq").endpoint)


@pytest.mark.broker
@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages use curl, which is not installed")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_to_run(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_work_in_their_order(
    page: Path,
    broker: Broker,
    clickhouse_of_the_pages: ClickHouseServer,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    topic, letters = (f"events-{uuid.uuid4().hex[:8]}" for _ in range(2))
    broker.create_topic(letters, 1)
    server = clickhouse_of_the_pages
    server.query("DROP TABLE IF EXISTS default.events")
    sqs: str = request.getfixturevalue("server_of_sqs")() if SQS in page.read_text() else SQS

    def here(text: str) -> str:
        text = text.replace(SQS, sqs)
        text = text.replace("localhost:9092", broker.bootstrap).replace("localhost:8123", f"127.0.0.1:{server.port}")
        if "localhost:415" in text:
            nsqd: Nsqd = request.getfixturevalue("nsqd")
            text = text.replace("localhost:4150", nsqd.address).replace("localhost:4151", nsqd.http_address)
        text = re.sub(r"(-t |topics = \[\"|topics=\(\"|\"topics\": \")events\b(?!\.)", rf"\1{topic}", text)
        # Somebody else may have the port; 0 takes any that is free.
        return re.sub(r"\bevents\.dlq\b", letters, text).replace("127.0.0.1:9100", "127.0.0.1:0")

    for place in ("deploy", "README.md"):
        (tmp_path / place).symlink_to(ROOT / place)
    for name, source, language in (("batcher.toml", REFERENCE, "toml"), ("my_sink.py", README, "python")):
        (block,) = blocks_in(source, language)
        (tmp_path / name).write_text(here(block))
    for block in blocks_in(page, "python"):
        if called := re.match(r"# (\w+\.py)\b", block):
            (tmp_path / called[1]).write_text(block)
    script = "\n".join(["set -eu", *map(here, blocks_to_run(page))])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = run_shell(script, directory=tmp_path, environment={"PATH": path}, timeout_s=200)
    assert done.code == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


if __name__ == "__main__":
    assert sys.argv[1:] == ["--update"], __doc__
    for page, block, made in (
        (README, BENCH, table(IN_README)),
        (PERFORMANCE, BENCH, table()),
        (REFERENCE, FLAGS, flag_table()),
    ):
        page.write_text(block.sub(made.replace("\\", r"\\"), page.read_text()))
