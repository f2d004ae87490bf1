"""What the HTTP endpoints answer, to whom, and how they treat bad clients."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from batcher.errors import ConfigurationError
from batcher.records import Partition
from batcher.telemetry import server as web
from batcher.telemetry.http import WebServer
from batcher.telemetry.metrics import Metrics
from batcher.telemetry.server import parse_address
from batcher.telemetry.status import PartitionStatus, Status
from tests.harness.patience import wait_for


@dataclass
class Pipeline:
    """Stand in for what the server asks."""

    is_alive: bool = True
    is_ready: tuple[bool, str] = (True, "")
    now: Status = field(default_factory=lambda: Status("running", group="läders"))
    error: Exception | None = None

    def status(self) -> Status:
        if self.error is not None:
            raise self.error
        return self.now

    def alive(self) -> bool:
        return self.is_alive

    def ready(self) -> tuple[bool, str]:
        return self.is_ready


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.fixture
def make_server(pipeline: Pipeline) -> Iterator[Callable[..., WebServer]]:
    made: list[WebServer] = []

    def make(addr: str = "127.0.0.1:0", client_timeout_s: float = 10.0) -> WebServer:
        metrics = Metrics("null")
        metrics.watch(pipeline.status)
        server = WebServer(
            addr, metrics, pipeline.status, pipeline.alive, pipeline.ready, client_timeout_s=client_timeout_s
        )
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def server(make_server: Callable[..., WebServer]) -> WebServer:
    server = make_server()
    server.start()
    return server


def ask(server: WebServer, path: str, method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(server.addr, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def connect(server: WebServer) -> socket.socket:
    host, port = parse_address(server.addr)
    return socket.create_connection((host, port), timeout=10)


def test_metrics_are_served_for_prometheus(server: WebServer, pipeline: Pipeline) -> None:
    pipeline.now = Status("running", partitions={Partition("events", 0): PartitionStatus(lag=7)})
    code, body, headers = ask(server, "/metrics")
    assert (code, headers.get_content_type()) == (200, "text/plain")
    assert 'batcher_consumer_lag_records{partition="0",topic="events"} 7.0' in body
    assert "batcher_build_info" in body


def test_the_status_is_json(server: WebServer) -> None:
    code, body, headers = ask(server, "/status")
    assert (code, headers.get_content_type()) == (200, "application/json")
    assert json.loads(body)["state"] == "running"
    assert json.loads(body)["group"] == "läders"


def test_life_is_asked_of_the_threads_and_not_of_the_target(server: WebServer, pipeline: Pipeline) -> None:
    pipeline.is_ready = (False, "the target does not answer")
    assert ask(server, "/livez")[:2] == (200, "alive\n")
    pipeline.is_alive = False
    assert ask(server, "/livez")[0] == 503


def test_readiness_says_why_not(server: WebServer, pipeline: Pipeline) -> None:
    assert ask(server, "/readyz")[:2] == (200, "ready\n")
    pipeline.is_ready = (False, "no partitions assigned")
    assert ask(server, "/readyz")[:2] == (503, "no partitions assigned\n")


def test_an_unknown_path_is_told_the_known_ones(server: WebServer) -> None:
    code, body, _ = ask(server, "/")
    assert code == 404
    assert all(path in body for path in ("/metrics", "/livez", "/readyz", "/status"))


@pytest.mark.parametrize("path", ["/metrics", "/status", "/livez"])
def test_head_has_no_body_and_nothing_but_reading_is_allowed(server: WebServer, path: str) -> None:
    with connect(server) as client:
        client.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")
    code, _, headers = ask(server, path, "POST")
    assert (code, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/status", "/metrics"])
def test_a_bug_in_what_is_asked_is_500_and_stays_in_the_log(
    server: WebServer,
    pipeline: Pipeline,
    path: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pipeline.error = RuntimeError("secret detail")
    code, body, _ = ask(server, path)
    assert code == 500
    assert "secret detail" not in body
    assert [record.getMessage() for record in caplog.records] == [f"cannot answer {path}: RuntimeError"]
    assert capfd.readouterr().err == ""
    assert ask(server, "/livez")[0] == 200


def test_requests_leave_nothing_on_stderr(
    server: WebServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    ask(server, "/livez")
    with connect(server) as client:
        client.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        client.recv(1000)
    assert capfd.readouterr().err == ""
    assert caplog.records == []


def test_a_silent_client_keeps_nobody_waiting(server: WebServer) -> None:
    with connect(server), connect(server) as halfway:
        halfway.sendall(b"GET /livez HTTP/1.1\r\nHost:")
        assert ask(server, "/livez")[0] == 200


def test_a_silent_client_is_cut_off(make_server: Callable[..., WebServer], capfd: pytest.CaptureFixture[str]) -> None:
    server = make_server(client_timeout_s=0.1)
    server.start()
    with connect(server) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost:")
        assert client.recv(1000) == b""
    assert ask(server, "/livez")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_client_that_goes_away_is_nobodys_error(server: WebServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        with connect(server) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert ask(server, "/livez")[0] == 200
    assert capfd.readouterr().err == ""


def test_too_many_clients_are_turned_away_and_room_comes_back(
    make_server: Callable[..., WebServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 2)
    server = make_server()
    server.start()
    with connect(server) as first, connect(server) as second, connect(server) as third:
        assert third.recv(1000) == b""
        for client in (first, second):
            client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            while client.recv(1000):
                pass

    def answers() -> bool:
        # A client sees the end of its connection a moment before its place is free.
        try:
            return ask(server, "/livez")[0] == 200
        except (http.client.RemoteDisconnected, ConnectionResetError):
            return False

    wait_for(answers, "room for another client")


def test_the_thread_is_a_daemon_named_http_and_ends_with_stop(server: WebServer) -> None:
    (thread,) = [one for one in threading.enumerate() if one.name == "http"]
    assert thread.daemon
    server.stop()
    server.stop()
    assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_stopping_what_never_started_is_harmless(make_server: Callable[..., WebServer]) -> None:
    make_server().stop()


def test_stopping_does_not_wait_for_a_silent_client(server: WebServer) -> None:
    with connect(server):
        ask(server, "/livez")
        server.stop()
    assert not [one for one in threading.enumerate() if one.name == "http"]


def test_a_port_in_use_is_a_wrong_setting(server: WebServer, make_server: Callable[..., WebServer]) -> None:
    with pytest.raises(ConfigurationError, match=rf"--http\.addr {server.addr}: .*give another port"):
        make_server(server.addr).start()


def test_an_address_of_another_machine_is_a_wrong_setting(make_server: Callable[..., WebServer]) -> None:
    with pytest.raises(ConfigurationError, match=r"--http\.addr"):
        make_server("192.0.2.1:0").start()


@pytest.mark.parametrize("addr", ["", "9100", ":9100", "localhost", "localhost:", "localhost:x", "h:65536", "::1:9100"])
def test_an_address_without_host_or_port_is_a_wrong_setting(addr: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--http\.addr .*127\.0\.0\.1:9100"):
        parse_address(addr)


def test_addresses_of_both_kinds_are_understood() -> None:
    assert parse_address("127.0.0.1:9100") == ("127.0.0.1", 9100)
    assert parse_address("[::1]:0") == ("::1", 0)


def test_ipv6_is_served(make_server: Callable[..., WebServer]) -> None:
    server = make_server("[::1]:0")
    try:
        server.start()
    except ConfigurationError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert ask(server, "/livez")[0] == 200
