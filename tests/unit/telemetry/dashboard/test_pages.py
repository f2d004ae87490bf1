"""What the server of the page does with browsers, nonsense and clients that never read."""

from __future__ import annotations

import http.client
import json
import re
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.records import DeadLetter, Partition
from batcher.telemetry import server as web
from batcher.telemetry.dashboard import pages as served
from batcher.telemetry.dashboard.feed import Feed, FeedThread
from batcher.telemetry.dashboard.letters import EACH, REASONS, SHOWN_BYTES, WatchedDeadLetters
from batcher.telemetry.dashboard.observation import Observer
from batcher.telemetry.dashboard.pages import DashboardPages, assets
from batcher.telemetry.dashboard.recorder import Recorder
from batcher.telemetry.dashboard.team import Member, Team
from batcher.telemetry.http import WebServer
from batcher.telemetry.metrics import Metrics
from batcher.telemetry.server import parse_address
from batcher.telemetry.status import Counts, LastError, PartitionStatus, Status
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.values import make_records
from tests.harness.patience import LONG, wait_for

A = Partition("orders", 0)


def status() -> Status:
    return Status("running", partitions={A: PartitionStatus(5, 5, 0)})


@pytest.fixture
def feed() -> Feed:
    found = Feed({"settings": []})
    found.add(Observer(status, Recorder())())
    return found


@pytest.fixture
def make(feed: Feed) -> Iterator[Callable[..., WebServer]]:
    with ExitStack() as ends:

        def made(client_timeout_s: float = 10.0) -> WebServer:
            pages = DashboardPages(feed)
            server = WebServer(
                "127.0.0.1:0",
                Metrics("null"),
                status,
                lambda: True,
                lambda: (True, ""),
                pages=pages,
                client_timeout_s=client_timeout_s,
            )
            server.start()
            ends.callback(server.stop)
            ends.callback(feed.close)
            return server

        yield made


@pytest.fixture
def server(make: Callable[..., WebServer]) -> WebServer:
    return make()


def ask(server: WebServer, path: str, method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(server.addr, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def connect(server: WebServer) -> socket.socket:
    return socket.create_connection(parse_address(server.addr), timeout=20)


def test_the_page_loads_only_what_it_brings_itself_and_runs_nothing_inline(server: WebServer) -> None:
    code, body, headers = ask(server, "/")
    assert (code, headers.get_content_type()) == (200, "text/html")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    for reference in re.findall(r'(?:src|href)="([^"#]+)"', body):
        assert ask(server, f"/{reference}")[0] == 200, reference
    for _, text in assets().values():
        assert not re.findall(r"https?://(?!www\.w3\.org/)", text)
    assert not re.search(r"<script(?![^>]*src)|<style|\son[a-z]+=|\sstyle=", body)


def test_every_module_that_the_script_imports_is_served(server: WebServer) -> None:
    for path, (_, text) in assets().items():
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert ask(server, f"/assets/{name}")[0] == 200, (path, name)


@pytest.mark.parametrize("path", ["/", "/assets/app.js", "/events"])
def test_the_page_is_only_read(server: WebServer, path: str) -> None:
    code, _, headers = ask(server, path, "POST")
    assert (code, headers["Allow"]) == (405, "GET, HEAD")
    code, body, _ = ask(server, path, "HEAD")
    assert (code, body) == (200, "")


def test_a_page_hears_of_everything_and_then_of_each_second(server: WebServer, feed: Feed) -> None:
    with connect(server) as client, client.makefile("rb") as stream:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        lines = iter(stream.readline, b"")
        assert next(line for line in lines if line.startswith(b"event:")) == b"event: hello\n"
        hello = json.loads(next(lines).removeprefix(b"data: "))
        assert hello["now"]["state"] == "running"
        feed.add(Observer(status, Recorder())())
        assert next(line for line in lines if line.startswith(b"event:")) == b"event: tick\n"


def test_more_pages_than_there_is_room_for_are_told_so_and_room_comes_back(
    make: Callable[..., WebServer], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "MAX_STREAMS", 2)
    server = make()
    with connect(server) as first, connect(server) as second:
        for client in (first, second):
            client.sendall(b"GET /events HTTP/1.1\r\n\r\n")
            assert client.recv(100)
        code, text, headers = ask(server, "/events")
        assert (code, headers["Retry-After"]) == (503, "10")
        assert "2 pages are open" in text
        assert ask(server, "/metrics")[0] == 200

    def free() -> bool:
        feed.add(Observer(status, Recorder())())  # a page that went away is noticed when it is told something
        return not feed._mailboxes

    wait_for(free, "the places to be free")


def test_a_page_that_never_reads_is_cut_off_and_nobody_waits_for_it(make: Callable[..., WebServer], feed: Feed) -> None:
    server = make(client_timeout_s=0.2)
    with connect(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /events HTTP/1.1\r\n\r\n")
        wait_for(lambda: feed._mailboxes, "the page to be open")
        seen = {**Observer(status, Recorder())(), "target": "x" * 500_000}

        def gone() -> bool:
            feed.add(seen)
            return not feed._mailboxes

        wait_for(gone, "the page to be given up")
    assert ask(server, "/livez")[0] == 200


def test_who_sends_a_request_byte_by_byte_has_as_long_as_anybody_else(make: Callable[..., WebServer]) -> None:
    server = make(client_timeout_s=0.3)
    with connect(server) as client:
        ended = threading.Event()

        def trickle() -> None:
            while not ended.wait(0.05):
                try:
                    client.send(b"G")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            answer = client.recv(1000)
        except ConnectionResetError:
            answer = b""
        finally:
            ended.set()
            thread.join()
        assert answer == b""


def test_thousands_of_silent_connections_keep_no_scraper_out(
    make: Callable[..., WebServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PATIENT_S", 0.0)
    server = make()
    wanted = 10_000 if LONG else 400
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = min(2 * wanted + 500, hard) if hard != resource.RLIM_INFINITY else 2 * wanted + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, room), hard))
    try:
        with ExitStack() as held:
            for number in range(min(wanted, room // 2 - 250)):
                try:
                    client = held.enter_context(connect(server))
                    client.sendall(b"GET /metr")
                except OSError:
                    continue  # turned away
                if number % 200 == 199:
                    assert ask(server, "/metrics")[0] == 200
            assert ask(server, "/livez")[0] == 200
            threads = [one for one in threading.enumerate() if "process_request" in one.name]
            assert len(threads) <= web.MAX_CONNECTIONS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def lasting() -> Iterator[WebServer]:
    feed = Feed({})
    server = WebServer(
        "127.0.0.1:0", Metrics("null"), status, lambda: True, lambda: (True, ""), pages=DashboardPages(feed)
    )
    server.start()
    yield server
    feed.close()
    server.stop()


@settings(deadline=None, max_examples=300 if LONG else 60)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda method, path, header: b"%s /%s HTTP/1.1\r\n%s: %s\r\n\r\n" % (method, path, header, header),
            st.sampled_from([b"GET", b"PUT", b"POST", b"DELETE", b"", b"get", b"\xff"]),
            st.one_of(st.binary(max_size=60), st.sampled_from([b"../../etc/passwd", b"assets/../../x", b"%2e%2e/%00"])),
            st.binary(min_size=1, max_size=60),
        ),
        st.sampled_from([b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300]),
    )
)
def test_whatever_a_client_sends_gets_an_answer_or_an_end_and_never_a_bug(lasting: WebServer, sent: bytes) -> None:
    with connect(lasting) as client:
        try:
            client.sendall(sent + b"\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(12)
        except OSError:
            answer = b""  # it was enough before the end of it
    assert not answer.startswith(b"HTTP/1.0 500")
    assert ask(lasting, "/livez")[0] == 200


def test_huge_headers_are_refused_by_name(server: WebServer) -> None:
    for head, code in (
        (b"GET /%s HTTP/1.1" % (b"x" * 70_000), b"414"),
        (b"GET / HTTP/1.1\r\na: %s" % (b"x" * 70_000), b"431"),
    ):
        with connect(server) as client:
            client.sendall(head + b"\r\n\r\n")
            assert client.recv(12).endswith(code)


def letter(value: bytes, offset: int = 0, reason: str = "type") -> DeadLetter:
    return DeadLetter(make_records([value], first_offset=offset).record(0), "decode", reason, "is no number", "user_id")


def test_values_of_dead_letters_are_kept_only_where_that_is_said() -> None:
    secret = b"canary-in-a-value"
    for payloads in (False, True):
        queue = MemoryDeadLetterQueue()
        watched = WatchedDeadLetters(queue, payloads=payloads)
        watched.send([letter(secret)])
        assert len(queue.coordinates()) == 1
        seen = Observer(status, Recorder(), watched.shown)()
        assert ("canary" in json.dumps(seen)) == payloads
        assert seen["letters"][0]["offset"] == 0


def test_a_million_dead_letters_take_the_room_of_a_few() -> None:
    watched = WatchedDeadLetters(MemoryDeadLetterQueue(), payloads=True)
    for number in range(100):
        watched.send([letter(b"\xc3\xa4" * 5000, n, f"reason-{number % 30}") for n in range(10)])
    shown = watched.shown()
    assert len(shown) == EACH * REASONS
    assert all(len(one["value"]) < SHOWN_BYTES + 30 for one in shown)
    assert [one["offset"] for one in shown[:EACH]] == [9, 8, 7]


def test_a_bug_in_what_is_observed_is_logged_once_and_the_thread_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("batcher.telemetry.dashboard.feed.EVERY_S", 0.001)
    calls: list[int] = []

    def observe() -> dict[str, object]:
        calls.append(1)
        raise RuntimeError("a bug")

    thread = FeedThread(observe, [])
    thread.start()
    wait_for(lambda: len(calls) > 5, "more rounds")
    thread.stop()
    assert len(caplog.records) == 1


def told(pid: int, written: int, **more: object) -> dict[str, object]:
    seen = Observer(lambda: Status("running", counts=Counts(written=written, consumed=written)), Recorder())()
    return {**seen, "pid": pid, **more}


def test_the_parent_sums_and_a_worker_that_is_started_again_takes_nothing_from_the_sums() -> None:
    team = Team()
    both = [Member(0, True, False, 1), Member(1, True, False, 1)]
    assert team.observation(both) is None
    team.tell(0, told(1, 100, lag=5))
    team.tell(1, told(2, 50, lag=7))
    seen = team.observation(both)
    assert seen is not None
    assert (seen["counts"]["written"], seen["lag"]) == (150, 12)
    team.tell(1, told(3, 1, lag=9))
    seen = team.observation([both[0], Member(1, True, False, 2)])
    assert seen is not None
    assert (seen["counts"]["written"], seen["lag"]) == (151, 14)
    assert [one["written"] for one in seen["workers"]] == [100, 51]


def test_the_worst_worker_speaks_for_all_and_one_that_is_away_is_an_alarm() -> None:
    from batcher.telemetry.dashboard.judgement import Trend, judged

    team = Team()
    error = LastError("SinkUnavailable", "refused", 3.0)
    failing = Observer(lambda: Status("running", last_error=error, waiting_for="the target: refused"), Recorder())()
    team.tell(0, told(1, 100))
    team.tell(1, {**failing, "pid": 2})
    seen = team.observation([Member(0, True, False, 1), Member(1, True, False, 1)])
    assert seen is not None
    assert judged(seen, Trend())[0].title == "Not writing"
    seen = team.observation([Member(0, True, False, 1), Member(1, False, False, 1, 4.0)])
    assert seen is not None
    assert judged(seen, Trend())[0].title == "A worker is away"
