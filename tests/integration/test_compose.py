"""The shipped Docker files: what can be checked of them without a daemon, and one load through all of it with one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from batcher.generate.events import ORDERS, EventGenerator
from batcher.settings import Settings, load
from batcher.sources.kafka.settings import Kafka
from batcher.sources.nsq.settings import Nsq
from batcher.sources.sqs.settings import Sqs
from batcher.testing.kafka import produce
from sinks.clickhouse.settings import ClickHouse
from tests.harness.patience import wait_for
from tests.harness.processes import ROOT, run_code

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
KUBERNETES = ROOT / "deploy" / "kubernetes" / "batcher.yaml"
QUEUES = {source: ROOT / "deploy" / "kubernetes" / f"{source}.yaml" for source in ("nsq", "sqs")}
SYSTEMD = ROOT / "deploy" / "systemd" / "batcher.service"
TABLES = ROOT / "deploy" / "clickhouse"
STACK_S = 180.0
"""How long the stack may take for each step: its images may still have to be fetched."""

ADDRESS = re.compile(r"127\.0\.0\.1:\d+:\d+")

RUN_IN_CHDB = """
import json, sys
from chdb import session
request = json.load(sys.stdin)
engine = session.Session()
for statement in request["statements"]:
    engine.query(statement)
print(engine.query(request["question"], "JSON"))
"""


def arguments_in(file: Path) -> list[str]:
    """Return the flags that a YAML file passes to batcher."""
    return re.findall(r"^\s*- (--\S+)$", file.read_text(), re.MULTILINE)


def settings_of(file: Path) -> Settings:
    from batcher.cli.verbs.run import parser

    variables = {"BATCHER_CLICKHOUSE_PASSWORD": "secret"}
    return load(parser(), arguments_in(file), variables, runnable=True).settings


def ask_chdb(statements: list[str], question: str) -> dict[str, list[dict[str, object]]]:
    """Run statements in an embedded ClickHouse of their own: a process can have only one."""
    pytest.importorskip("chdb", reason="the embedded ClickHouse is not installed")
    done = run_code(RUN_IN_CHDB, stdin=json.dumps({"statements": statements, "question": question}))
    assert done.code == 0, done.stderr
    answer: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return answer


def statements() -> list[str]:
    return ["CREATE DATABASE IF NOT EXISTS default", *(file.read_text() for file in sorted(TABLES.glob("*.sql")))]


def test_every_image_is_pinned_to_a_version() -> None:
    images = re.findall(r"^\s*image: (\S+)$", COMPOSE.read_text(), re.MULTILINE)
    images += re.findall(r"^\s*image: (\S+)$", KUBERNETES.read_text(), re.MULTILINE)
    images += re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert {"apache/kafka:4.3.1", "clickhouse/clickhouse-server:26.8", "python:3.14-slim"} <= set(images)
    for image in images:
        assert re.search(r":\d+\.\d+", image), image


def test_ports_are_published_on_loopback_only() -> None:
    published = re.findall(r'^\s*- "(\S*\d+:\d+)"$', COMPOSE.read_text(), re.MULTILINE)
    assert len(published) == 3
    assert [port for port in published if not ADDRESS.fullmatch(port)] == []


def test_what_compose_mounts_is_there() -> None:
    mounted = re.findall(r"^\s*- (\./\S+?):", COMPOSE.read_text(), re.MULTILINE)
    assert [ROOT / path for path in mounted] == [TABLES]
    assert list(TABLES.glob("*.sql"))


@pytest.mark.parametrize("file", [COMPOSE, KUBERNETES], ids=["compose", "kubernetes"])
def test_the_flags_of_the_service_are_accepted(file: Path) -> None:
    settings = settings_of(file)
    assert settings.sink == "clickhouse"
    assert settings.section(Kafka).topics == ("events",)
    assert settings.section(ClickHouse).table == "events"
    assert settings.dlq.topic == "events.dlq"
    assert settings.http.addr == "0.0.0.0:9100"


@pytest.mark.parametrize("source", list(QUEUES))
def test_the_flags_of_the_deployments_for_queues_are_accepted_and_their_scaling_names_the_same_queue(
    source: str,
) -> None:
    file = QUEUES[source]
    settings = settings_of(file)
    assert (settings.source, settings.sink) == (source, "clickhouse")
    scaled = file.read_text().partition("kind: ScaledObject")[2]
    if source == "nsq":
        nsq = settings.section(Nsq)
        (address,) = nsq.lookupd
        assert f"nsqLookupdHTTPAddresses: {address}\n" in scaled
        assert f"topic: {nsq.topic}\n        channel: {nsq.channel}\n" in scaled
    else:
        assert f"queueURL: {settings.section(Sqs).queue}\n" in scaled
    names = set(re.findall(r"^  (?:name|scaleTargetRef): \{?(?:name: )?([\w-]+)", file.read_text(), re.MULTILINE))
    assert names == {f"batcher-{source}"}


def test_no_password_stands_in_an_argument() -> None:
    for file in (COMPOSE, KUBERNETES, *QUEUES.values()):
        assert not re.search(r"--\S*://\w+:\w+@", file.read_text())


def test_what_stops_batcher_waits_longer_than_it_needs_to_drain() -> None:
    needed_s = Settings().stop_timeout.total_seconds()
    given_s = [
        re.findall(r"stop_grace_period: (\d+)s", COMPOSE.read_text()),
        *(
            re.findall(r"terminationGracePeriodSeconds: (\d+)", one.read_text())
            for one in (KUBERNETES, *QUEUES.values())
        ),
        re.findall(r"TimeoutStopSec=(\d+)", SYSTEMD.read_text()),
    ]
    assert [int(seconds) > needed_s for (seconds,) in given_s] == [True] * 5


def test_the_unit_does_not_restart_what_stays_wrong() -> None:
    unit = SYSTEMD.read_text()
    assert "Restart=on-failure" in unit
    assert "RestartPreventExitStatus=2 78" in unit


def test_the_image_runs_as_nobody_and_drains_when_stopped() -> None:
    dockerfile = DOCKERFILE.read_text()
    assert re.search(r"^USER [1-9]\d+$", dockerfile, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", dockerfile, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["python", "-m", "batcher"\]$', dockerfile, re.MULTILINE)
    assert re.search(r"^ARG LOCK=runtime$", dockerfile, re.MULTILINE)
    assert re.search(r"pip install .*--require-hashes -r requirements/\$LOCK\.lock", dockerfile)


def test_the_full_image_has_what_every_extra_needs_and_the_other_one_none_of_it() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {Requirement(one).name for one in project["dependencies"]}
    found = {name: some for name, some in project["optional-dependencies"].items() if name != "native"}
    extras = {Requirement(one).name for some in found.values() for one in some}
    full, slim = (
        set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements" / f"{name}.lock").read_text(), re.MULTILINE))
        for name in ("full", "runtime")
    )
    assert core | extras <= full
    assert core <= slim
    assert not (extras - core) & slim


def test_the_wheel_builds_from_what_the_image_is_given(tmp_path: Path) -> None:
    sent = tmp_path / "context"
    for source in copied_into_the_image():
        (sent / source).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, sent / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, sent / source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(sent)], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        assert {"batcher/__init__.py", "sinks/__init__.py"} <= set(files.namelist())


def test_the_daemon_gets_everything_the_image_copies_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    assert allowed == set(copied_into_the_image())
    assert any(fnmatch("batcher/__pycache__", rule) for rule in rules[1:] if not rule.startswith("!"))


def copied_into_the_image() -> list[str]:
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    locks = [f"requirements/{name}.lock" for name in ("runtime", "full")]
    named = [source for line in copies for source in line.split()]
    return [one for source in named for one in (locks if "$LOCK" in source else [source])]


def test_the_table_takes_the_default_events_of_produce() -> None:
    events = [event.decode() for event in EventGenerator(ORDERS, seed=1).take(500)]
    insert = "INSERT INTO default.events SETTINGS input_format_skip_unknown_fields = 0 FORMAT JSONEachRow " + "\n".join(
        events
    )
    question = "SELECT count() AS events, uniqExact(id) AS ids, min(price) > 0 AS priced FROM default.events"
    (row,) = ask_chdb([*statements(), insert], question)["data"]
    assert (int(str(row["events"])), int(str(row["ids"])), row["priced"]) == (500, 500, 1)


def test_the_table_has_a_column_for_every_field_and_the_coordinates() -> None:
    answer = ask_chdb([*statements(), *statements()], "DESCRIBE TABLE default.events")
    columns = [str(row["name"]) for row in answer["data"]]
    (event,) = EventGenerator(ORDERS, seed=1).take(1)
    assert columns == [*json.loads(event), "_topic", "_partition", "_offset", "_timestamp"]


@pytest.fixture(scope="module")
def compose_command() -> None:
    """Skip, with the reason, where Docker cannot do what the tests need."""
    if shutil.which("docker") is None:
        pytest.skip("no docker on the PATH")
    for command, missing in ((["compose", "version"], "no docker compose"), (["info"], "no Docker daemon answers")):
        done = subprocess.run(["docker", *command], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            pytest.skip(f"{missing}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


@pytest.fixture
def stack(compose_command: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from testcontainers.compose import DockerCompose

    # A project of its own: what somebody has running from the same file keeps its volumes.
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "batcher-test")
    with DockerCompose(ROOT, profiles=["batcher"], build=True, wait=False) as compose:
        yield
        # pytest shows it if the test failed.
        sys.stdout.writelines(compose.get_logs("batcher"))


def fetched(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return None


@pytest.mark.docker
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("stack")
def test_events_get_through_the_shipped_stack() -> None:
    import clickhouse_connect

    wait_for(lambda: fetched("http://127.0.0.1:9100/readyz") is not None, "the stack is ready", STACK_S)
    events: list[bytes | str | None] = [*EventGenerator(ORDERS, seed=1, poison=0.001).take(10_000)]
    produce("localhost:9092", "events", events)

    def done() -> bool:
        counts = json.loads(fetched("http://127.0.0.1:9100/status") or "{}").get("counts", {})
        return bool(counts.get("written", 0) + counts.get("dead_lettered", 0) == 10_000)

    wait_for(done, "10,000 records are durable", STACK_S)
    client = clickhouse_connect.get_client(host="localhost", port=8123, username="batcher", password="local-only")
    try:
        counted = client.query("SELECT count(), uniqExact(_partition, _offset) FROM events").result_rows
    finally:
        client.close()
    assert counted == [(9_990, 9_990)]
    assert 'batcher_records_dead_lettered_total{stage="decode"} 10.0' in (
        fetched("http://127.0.0.1:9100/metrics") or ""
    )
