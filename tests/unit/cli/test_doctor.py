"""`batcher doctor`: what each check says, and the exit code that it asks for."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]

from batcher.cli.main import main
from batcher.cli.support.doctor import brokers, certificate, machine, servers
from batcher.cli.support.doctor.finding import code_of, doubtful, fine, guarded, wrong
from batcher.errors import SinkUnavailable
from batcher.settings import Settings
from tests.harness.processes import run_code


class AnsweringAdmin:
    """Answer as brokers do that allow `allowed`, or None where they do not say."""

    def __init__(self, allowed: Sequence[Any] | None, error: KafkaError | None = None) -> None:
        self._allowed = allowed
        self._error = error

    def _answer(self) -> Future[Any]:
        future: Future[Any] = Future()
        if self._error is not None:
            future.set_exception(KafkaException(self._error))
        else:
            future.set_result(type("Description", (), {"authorized_operations": self._allowed, "members": [1]}))
        return future

    def describe_topics(self, topics: Any, **_: object) -> dict[str, Future[Any]]:
        return {name: self._answer() for name in topics.topic_names} if hasattr(topics, "topic_names") else {}

    def describe_consumer_groups(self, groups: Sequence[str], **_: object) -> dict[str, Future[Any]]:
        return {name: self._answer() for name in groups}


def admin(allowed: Sequence[Any] | None, error: KafkaError | None = None) -> AdminClient:
    return cast("AdminClient", AnsweringAdmin(allowed, error))


@pytest.mark.parametrize(
    ("allowed", "error", "good", "said"),
    [
        ([AclOperation.READ], None, True, "1 member"),
        ([AclOperation.DESCRIBE], None, False, "READ is not allowed"),
        (None, None, True, "does not say"),
        (None, KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), False, "have READ on the group allowed"),
        (None, KafkaError(KafkaError.GROUP_ID_NOT_FOUND), True, "is new"),
    ],
)
def test_the_right_to_the_group_is_looked_at(
    allowed: Sequence[Any] | None, error: KafkaError | None, good: bool, said: str
) -> None:
    [found] = brokers.group_rights(admin(allowed, error), "g")
    assert found.good is good
    assert said in found.said
    assert found.code == (0 if good else 78)


def test_what_has_to_be_repaired_decides_the_exit_code_before_what_does_not_answer() -> None:
    assert code_of([fine("a", ""), doubtful("b", "")]) == 0
    assert code_of([wrong("a", "", 69), fine("b", "")]) == 69
    assert code_of([wrong("a", "", 69), wrong("b", "", 78)]) == 78


def test_what_a_check_raises_is_a_finding() -> None:
    def check() -> Iterator[Any]:
        yield fine("x", "")
        raise SinkUnavailable("away")

    first, second = guarded("x", check)
    assert (first.good, second.good, second.said, second.code) == (True, False, "away", 69)


def test_a_part_that_is_not_installed_is_named_with_what_to_install() -> None:
    # In a Python of its own: what a test before this one has loaded is not missed.
    done = run_code(
        "import sys\n"
        "from batcher.cli.support.doctor import machine\n"
        "from batcher.settings import Settings\n"
        "sys.modules['boto3'] = None\n"
        "settings = Settings(source='sqs', sink='null', sqs={'queue': 'q'})\n"
        "[found] = [one for one in machine.installed(settings) if one.good is False]\n"
        "print(found.said)\n"
    )
    assert "kafka-batcher[sqs]" in done.stdout, done.stderr


def test_a_directory_that_is_not_there_is_judged_by_the_one_above_it(tmp_path: Path) -> None:
    settings = Settings(sink="parquet", parquet={"path": str(tmp_path / "a" / "b")}, dlq={"path": str(tmp_path)})
    assert [one.good for one in machine.disks(settings)] == [True, True]
    assert not (tmp_path / "a").exists()


def test_more_memory_than_there_is_is_told_with_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_memory", lambda: 1 << 30)
    _, found = machine.limits(Settings(batch={"memory": "2GiB"}))
    assert found.good is False
    assert "lower --batch.memory (2GiB)" in found.said
    _, found = machine.limits(Settings())
    assert found.good


class LateServer(BaseHTTPRequestHandler):
    """Answer with a clock that is an hour behind."""

    def do_HEAD(self) -> None:
        self.send_response_only(200)
        self.send_header("Date", (datetime.now(UTC) - timedelta(hours=1)).strftime("%a, %d %b %Y %H:%M:%S GMT"))
        self.end_headers()


def test_a_server_with_another_time_is_found() -> None:
    with HTTPServer(("127.0.0.1", 0), LateServer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        dsn = f"http://127.0.0.1:{server.server_port}/default"
        [found] = servers.clocks(Settings(sink="clickhouse", clickhouse={"dsn": dsn, "table": "t"}))
        thread.join()
    assert found.good is False
    assert "3,600 s behind" in found.said or "3,599 s behind" in found.said or "3,601 s behind" in found.said


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls")
    for name, days in (("long", 400), ("short", 3)):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days)]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command += ["-keyout", str(path / f"{name}.key"), "-out", str(path / f"{name}.pem")]
        subprocess.run(command, check=True, capture_output=True)
    return path


def test_the_end_of_a_certificate_is_read_from_its_file(certificates: Path) -> None:
    [der] = certificate.certificates_in(certificates / "long.pem")
    left = certificate.valid_until(der) - datetime.now(UTC)
    assert timedelta(days=398) < left < timedelta(days=401)
    with pytest.raises(ValueError, match="no certificate"):
        certificate.valid_until(b"\x30\x03\x02\x01")


@pytest.mark.parametrize(
    ("name", "trusted", "good", "said"),
    [
        ("long", True, True, "ends"),
        ("short", True, None, "have it made anew"),
        ("long", False, False, "is not trusted"),
    ],
)
def test_a_server_s_certificate_is_looked_at(
    certificates: Path, name: str, trusted: bool, good: bool | None, said: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    with HTTPServer(("localhost", 0), LateServer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.timeout = 10
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                server._handle_request_noblock() if server.socket.fileno() >= 0 else None  # type: ignore[attr-defined]

        server.socket.settimeout(0.2)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        ca = f"?ca_cert={certificates / name}.pem" if trusted else ""
        dsn = f"https://localhost:{server.server_port}/default{ca}"
        [found] = servers.tls(Settings(sink="clickhouse", clickhouse={"dsn": dsn, "table": "t"}))
        done.set()
        thread.join(5)
    assert found.good is good, found.said
    assert said in found.said


def test_settings_that_lack_something_are_a_bad_command_line() -> None:
    assert main(["doctor", "--sink", "parquet"]) == 2


def test_a_broker_that_is_away_is_69_and_json_has_every_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--sink", "parquet", "--parquet.path", str(tmp_path), "-b", "localhost:1", "-t", "t", "-g", "g"]
    assert main(["doctor", "--json", *flags]) == 69
    found = json.loads(capsys.readouterr().out)
    bad = [one["check"] for one in found["findings"] if one["good"] is False]
    assert (bad, found["exit"]) == (["source"], 69)


@pytest.mark.parametrize(
    ("variables", "installed", "found"),
    [
        ({}, True, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, True, [(True, "traces and metrics will be exported")]),
        ({"OTEL_METRICS_EXPORTER": "console"}, True, [(True, "metrics will be exported")]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, False, [(None, "pip install 'kafka-batcher[otel]'")]),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, True, [(None, "OTEL_TRACES_EXPORTER=zipkin")]),
    ],
    ids=str,
)
def test_what_will_be_exported_to_opentelemetry_is_said_and_stops_nothing(
    variables: dict[str, str],
    installed: bool,
    found: list[tuple[bool | None, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    if not installed:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = [one for one in machine.installed(Settings(sink="null")) if one.name == "otel"]
    assert [one.good for one in said] == [good for good, _ in found]
    assert all(text in one.said for one, (_, text) in zip(said, found, strict=True))
    assert code_of(said) == 0
