"""The shipped Docker files: what can be checked of them without a daemon, and one load through all of it with one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

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
MANIFESTS = ROOT / "deploy" / "kubernetes"
KUBERNETES = MANIFESTS / "batcher.yaml"
SCALING = MANIFESTS / "scaling.yaml"
QUEUES = {source: MANIFESTS / f"{source}.yaml" for source in ("nsq", "sqs")}
SYSTEMD = ROOT / "deploy" / "systemd" / "batcher.service"
TABLES = ROOT / "deploy" / "clickhouse"
STACK_S = 180.0
"""How long the stack may take for each step: its images may still have to be fetched."""

VALIDATED = "1.34"
"""The version of Kubernetes whose schemas the manifests have to fit."""

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


def documents_of(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


def container_of(file: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the flags and the variables with which a file runs batcher."""
    if file == COMPOSE:
        service = documents_of(file)[0]["services"]["batcher"]
        return service["command"], service["environment"]
    (workload,) = [one for one in documents_of(file) if "template" in one.get("spec", {})]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return container["args"], {one["name"]: one.get("value", "from elsewhere") for one in container["env"]}


def settings_of(file: Path) -> Settings:
    from batcher.cli.verbs.run import parser

    arguments, variables = container_of(file)
    return load(parser(), arguments, variables, runnable=True).settings


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


@pytest.mark.parametrize("file", sorted(MANIFESTS.glob("*.yaml")), ids=lambda file: file.stem)
def test_each_manifest_is_what_kubernetes_takes(file: Path) -> None:
    for document in documents_of(file):
        # KEDA's own kinds have no schema here, and a Kustomization stays with its tool.
        if not document["apiVersion"].startswith(("keda.sh/", "kustomize.")):
            kubernetes_validate.validate(document, VALIDATED, strict=True)


def test_the_base_of_kustomize_is_the_manifest() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH")
    done = subprocess.run(["kubectl", "kustomize", MANIFESTS], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    made = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}
    assert made == {(one["kind"], one["metadata"]["name"]): one for one in documents_of(KUBERNETES)}


def test_each_replica_is_a_member_of_its_own_that_comes_back_as_itself() -> None:
    workload = documents_of(KUBERNETES)[0]
    assert workload["kind"] == "StatefulSet"
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    (instance,) = [one for one in container["env"] if one["name"] == "BATCHER_KAFKA_INSTANCE"]
    assert instance["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_everything_for_kubernetes_speaks_of_the_same_pods() -> None:
    (scaled,) = documents_of(SCALING)
    workload, *others = documents_of(KUBERNETES)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert scaled["spec"]["scaleTargetRef"] == {"kind": workload["kind"], "name": workload["metadata"]["name"]}
    selected = [one["spec"].get("podSelector", one["spec"].get("selector", {})) for one in others]
    assert [one.get("matchLabels", one) for one in selected] == [labels] * 3
    kafka = settings_of(KUBERNETES).section(Kafka)
    (trigger,) = scaled["spec"]["triggers"]
    asked = {name: trigger["metadata"][name] for name in ("bootstrapServers", "consumerGroup", "topic")}
    assert asked == {"bootstrapServers": kafka.brokers, "consumerGroup": kafka.group, "topic": kafka.topics[0]}


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


def test_the_image_keeps_what_it_writes_in_a_volume_and_says_whether_it_is_well() -> None:
    dockerfile = DOCKERFILE.read_text()
    assert re.search(r"^VOLUME /data$", dockerfile, re.MULTILINE)
    joined = dockerfile.replace("\\\n", "")
    command = json.loads(re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", joined, re.MULTILINE)[0])
    silent = subprocess.run([sys.executable, *command[1:]], env={}, check=False, timeout=60, capture_output=True)
    assert silent.returncode == 0, silent.stderr
    address = {"BATCHER_HTTP_ADDR": "0.0.0.0:1"}
    away = subprocess.run([sys.executable, *command[1:]], env=address, check=False, timeout=60, capture_output=True)
    assert away.returncode != 0


def test_no_example_writes_into_the_layer_of_its_container() -> None:
    for file in (COMPOSE, KUBERNETES, *QUEUES.values()):
        assert "parquet.path" not in file.read_text()
    for command in re.findall(r"docker run .*", DOCKERFILE.read_text()):
        assert "-v " in command or "parquet.path" not in command


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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from nothing but what the image is given."""
    tmp_path = tmp_path_factory.mktemp("image")
    sent = tmp_path / "context"
    for source in copied_into_the_image():
        (sent / source).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, sent / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, sent / source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(sent)], check=True, timeout=120)
    (found,) = tmp_path.glob("*.whl")
    return found


def test_the_wheel_builds_from_what_the_image_is_given(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        assert {"batcher/__init__.py", "sinks/__init__.py"} <= set(files.namelist())


AS_IN_THE_CONTAINER = """
set -e
mount --make-rprivate /
mount -o remount,ro,bind /
mount -t tmpfs -o uid=10001,mode=700 tmpfs "$VOLUME"
# Python may be in the home of another user.
mount --bind "$PREFIX" "$PYTHON_AT"
cd "$VOLUME"
exec setpriv --reuid 10001 --regid 10001 --clear-groups bash -ec '
    ! touch /tmp/x 2> /dev/null
    "$PYTHON" -m batcher --version
    "$PYTHON" -c "import batcher; print(batcher.__file__)"
    "$PYTHON" -m batcher produce --to queue --queue.path q.db --create --count 500
    "$PYTHON" -m batcher --source queue --queue.path q.db --sink parquet --parquet.path events --until-eof
    "$PYTHON" -c "import pyarrow.parquet as pq; print(pq.read_table(\\"events\\").num_rows)"
    id -u
'
"""


def test_the_installed_wheel_loads_as_nobody_on_a_read_only_system_with_one_volume(wheel: Path, tmp_path: Path) -> None:
    probe = ["unshare", "--mount", "bash", "-c", "mount --make-rprivate / && mount -o remount,ro,bind /"]
    if shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("no unshare and setpriv on the PATH")
    if subprocess.run(probe, capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("this user may not make a mount namespace")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "installed")]
    subprocess.run([*pip, str(wheel)], check=True, timeout=120)
    for name in ("volume", "python"):
        (tmp_path / name).mkdir()
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    paths = [str(tmp_path / "installed"), sysconfig.get_path("platlib")]
    variables = {
        "BATCHER_QUEUE_GROUP": "files",
        "VOLUME": str(tmp_path / "volume"),
        "PREFIX": sys.base_prefix,
        "PYTHON_AT": str(tmp_path / "python"),
        "PYTHON": str(tmp_path / "python" / "bin" / f"python3.{sys.version_info.minor}"),
        "PYTHONPATH": os.pathsep.join(paths),
        "LD_LIBRARY_PATH": str(tmp_path / "python" / "lib"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
    }
    command = ["unshare", "--mount", "bash", "-c", AS_IN_THE_CONTAINER]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert str(tmp_path / "installed" / "batcher" / "__init__.py") in said
    assert said[-2:] == ["500", "10001"]


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
