"""The process behind `batcher.testing.clickhouse`: ClickHouse's HTTP protocol, spoken for chDB.

Each request has a connection of its own to the engine, so its settings and database end with it. An insert goes through
a file, which gives what a server gives: one part for an insert, tokens and error codes. chDB's streaming insert does
not (it swallows some errors and stores nothing).

It is long because it runs alone, as a process that imports nothing else of batcher.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import importlib
import json
import re
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa

FaultKind = Literal["reset_before_apply", "reset_after_apply", "status", "delay", "exception"]
"""What can go wrong with an insert.

`reset_before_apply`, `reset_after_apply`: the connection is reset, without or with the rows stored. `status`: an
HTTP status (`code`) without a ClickHouse error, as from a proxy. `delay`: the insert is applied and answered
`delay_s` seconds late, also when the client has gone; until then it runs, as `system.processes` shows, and another one
with its query id is refused. `exception`: error `code`, nothing stored.
"""

CONTROL: Final = "/_testing/"
# Parameters of the HTTP interface that are no settings of the engine, or for which this server has no use.
_NOT_SETTINGS: Final = frozenset(
    {
        "query",
        "database",
        "user",
        "password",
        "query_id",
        "quota_key",
        "role",
        "session_id",
        "session_timeout",
        "session_check",
        "default_format",
        "client_protocol_version",
        "buffer_size",
        "wait_end_of_query",
        "compress",
        "decompress",
        "enable_http_compression",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
        "stacktrace",
    }
)
# As ClickHouse's exceptionCodeToHTTPStatus has them; everything else is 500.
_STATUSES: Final = {
    **dict.fromkeys((6, 26, 27, 38, 41, 44, 46, 47, 53, 62, 73, 115, 117, 130, 131, 349, 376, 407, 675, 676, 691), 400),
    **dict.fromkeys((16, 20, 50, 60, 81, 218), 404),
    **dict.fromkeys((164, 192, 193, 194, 497, 516), 403),
    **dict.fromkeys((159, 160), 408),
    **dict.fromkeys((202, 203, 209, 210), 503),
}
_INSERT: Final = re.compile(rb"^\s*INSERT\s+INTO\b", re.IGNORECASE)
_DATA: Final = re.compile(rb"\bFORMAT\s+(\w+)[ \t]*\r?\n?", re.IGNORECASE)
_CODE: Final = re.compile(r"Code: (\d+)")
_PROCESSES: Final = re.compile(rb"(?<=\bFROM )system\.processes\b")
_TAKEN: Final = (
    "Code: 216. DB::Exception: Query with this id is already running. (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)"
)
_ENCODINGS: Final = {"lz4": "lz4", "zstd": "zstd", "gzip": "gzip"}


@dataclass(frozen=True, slots=True)
class Insert:
    """Hold what came with one insert: its statement, its size on the wire, its outcome.

    `settings` are all parameters of its URL, of the engine and of the interface, except user and password. `outcome` is
    `stored`, `failed` (the engine refused), `refused` (its query id was taken) or the name of the fault that was
    injected. `record_batches` counts those of an Arrow insert; for other formats it is 0.
    """

    statement: str
    settings: Mapping[str, str]
    wire_bytes: int
    outcome: str
    record_batches: int = 0


@dataclass(slots=True)
class HttpFault:
    """Say what the next `times` inserts meet; see `FaultKind`."""

    kind: FaultKind
    times: int = 1
    code: int = 0
    delay_s: float = 0.0


class EngineMissing(RuntimeError):
    """Report that chDB is not installed; the message names the extra."""


@dataclass(slots=True)
class _State:
    """Hold what all requests share. The engine runs one statement at a time."""

    path: Path
    users: Mapping[str, str]
    lock: threading.Lock = field(default_factory=threading.Lock)
    engine: threading.Lock = field(default_factory=threading.Lock)
    faults: list[HttpFault] = field(default_factory=list)
    inserts: list[Insert] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    @contextmanager
    def under_way(self, query_id: str) -> Iterator[bool]:
        """Show an insert as running, and yield True; yield False where its id is taken."""
        with self.lock:
            free = not query_id or query_id not in self.running
            if free:
                self.running.append(query_id)
        try:
            yield free
        finally:
            if free:
                with self.lock:
                    self.running.remove(query_id)

    def with_processes(self, statement: bytes) -> bytes:
        """Replace `system.processes` by the running inserts: the engine behind knows nothing of them."""
        with self.lock:
            listed = ", ".join(_literal(query_id) for query_id in self.running)
        table = f"(SELECT arrayJoin(CAST([{listed}] AS Array(String))) AS query_id)".encode()
        return _PROCESSES.sub(lambda _: table, statement)

    def next_fault(self) -> HttpFault | None:
        with self.lock:
            if not self.faults:
                return None
            fault = self.faults[0]
            fault.times -= 1
            if fault.times <= 0:
                self.faults.pop(0)
            return fault

    def run(
        self, sql: bytes, database: str, settings: Mapping[str, str], parameters: Mapping[str, str], form: str
    ) -> bytes:
        """Run a statement on a connection of its own, so that settings end with the request."""
        with self.engine:
            connection = chdb_connection(self.path)
            try:
                if database:
                    connection.query(f"USE {_identifier(database)}", "TabSeparated")
                for name, value in settings.items():
                    connection.query(f"SET {_identifier(name)} = {_literal(value)}", "TabSeparated")
                result: bytes = connection.query(sql, form, params=dict(parameters)).bytes()
                return result or b""
            finally:
                connection.close()


class _EngineHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: _State

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Log nothing: a test's output is its own."""

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/ping":
            self._reply(200, b"Ok.\n")
        else:
            self._query(b"")

    def do_POST(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        if path.startswith(CONTROL):
            self._steer(path.removeprefix(CONTROL), json.loads(body))
        else:
            self._query(body)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _steer(self, name: str, body: Mapping[str, Any]) -> None:
        state = self.state
        answer: Any = {}
        with state.lock:
            if name == "faults":
                state.faults.append(HttpFault(**body))
            elif name == "clear":
                state.faults.clear()
                state.inserts.clear()
            elif name == "inserts":
                answer = [asdict(insert) for insert in state.inserts]
        self._reply(200, json.dumps(answer).encode())

    def _query(self, body: bytes) -> None:
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        wire_bytes = len(body)
        if "multipart/form-data" in self.headers.get("Content-Type", ""):
            given |= _form(self.headers["Content-Type"], body)
            body = b""
        refusal = self._refusal(given)
        if refusal is not None:
            self._fail(refusal)
            return
        encoding = self.headers.get("Content-Encoding")
        if encoding in _ENCODINGS:
            body = pa.CompressedInputStream(pa.BufferReader(body), _ENCODINGS[encoding]).read()
        statement, data = _split(given.get("query", "").encode(), body)
        settings = {name: value for name, value in given.items() if _is_setting(name)}
        parameters = {name.removeprefix("param_"): text for name, text in given.items() if name.startswith("param_")}
        if data is None:
            self._run(statement, given, settings, parameters)
        else:
            self._insert(statement, data, given, settings, wire_bytes)

    def _run(
        self, statement: bytes, given: Mapping[str, str], settings: Mapping[str, str], parameters: Mapping[str, str]
    ) -> None:
        form = given.get("default_format", "TabSeparated")
        try:
            statement = self.state.with_processes(statement)
            result = self.state.run(statement, given.get("database", ""), settings, parameters, form)
        except RuntimeError as error:
            self._fail(str(error))
        else:
            stated = re.search(rb"\bFORMAT\s+(\w+)\s*;?\s*$", statement, re.IGNORECASE)
            headers = {"X-ClickHouse-Format": stated[1].decode() if stated else form} if result or stated else {}
            self._reply(200, result, headers)

    def _insert(
        self, statement: bytes, data: bytes, given: Mapping[str, str], settings: Mapping[str, str], wire_bytes: int
    ) -> None:
        with self.state.under_way(given.get("query_id", "")) as free:
            fault = self.state.next_fault() if free else None
            error = None if free else _TAKEN
            if fault is not None and fault.kind == "delay":
                time.sleep(fault.delay_s)
            if free and (fault is None or fault.kind in {"reset_after_apply", "delay"}):
                error = self._store(statement, data, given.get("database", ""), settings)
        outcome = "refused" if not free else fault.kind if fault is not None else "failed" if error else "stored"
        seen = {name: text for name, text in given.items() if name not in {"query", "user", "password"}}
        insert = Insert(statement.decode(errors="replace"), seen, wire_bytes, outcome, _record_batches(statement, data))
        with self.state.lock:
            self.state.inserts.append(insert)
        if fault is not None and fault.kind.startswith("reset"):
            self._reset()
        elif fault is not None and fault.kind == "status":
            self._reply(fault.code, b"injected\n")
        elif fault is not None and fault.kind == "exception":
            self._fail(f"Code: {fault.code}. DB::Exception: injected. (INJECTED)")
        elif error:
            self._fail(error)
        else:
            self._reply(200, b"", {"X-ClickHouse-Summary": "{}"})

    def _store(self, statement: bytes, data: bytes, database: str, settings: Mapping[str, str]) -> str | None:
        """Insert through a file: one part for an insert, tokens and errors as on a server."""
        head, _, form = statement.rpartition(b" FORMAT ")
        with tempfile.NamedTemporaryFile(prefix="batcher-insert-") as file:
            file.write(data)
            file.flush()
            sql = head + b" FROM INFILE " + _literal(file.name).encode() + b" FORMAT " + form
            # Reading a file cuts blocks by max_block_size, while a server's insert uses max_insert_block_size.
            size = {"max_block_size": settings.get("max_insert_block_size", "1048449")}
            try:
                self.state.run(sql, database, {**size, **settings}, {}, "TabSeparated")
            except RuntimeError as error:
                return str(error)
        return None

    def _refusal(self, given: Mapping[str, str]) -> str | None:
        user = given.get("user") or self.headers.get("X-ClickHouse-User") or "default"
        password = given.get("password") or self.headers.get("X-ClickHouse-Key") or ""
        scheme, _, secret = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            try:
                user, _, password = base64.b64decode(secret).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                user = ""
        if self.state.users.get(user) == password:
            return None
        return f"Code: 516. DB::Exception: {user}: Authentication failed. (AUTHENTICATION_FAILED)"

    def _fail(self, text: str) -> None:
        found = _CODE.search(text)
        code = int(found[1]) if found else 1002
        # The engine's own message repeats the statement's file name; a server's does not have one.
        self._reply(_STATUSES.get(code, 500), text.encode() + b"\n", {"X-ClickHouse-Exception-Code": str(code)})

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "text/plain; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def _reset(self) -> None:
        # A linger time of zero seconds turns the close into a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()


class _EngineServer(ThreadingHTTPServer):
    daemon_threads = True
    # An insert that is reset half way is the point of this server, not an event worth a traceback.
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, (OSError, ValueError)):
            super().handle_error(request, client_address)


def _is_setting(name: str) -> bool:
    return name not in _NOT_SETTINGS and not name.startswith("param_")


def _split(query: bytes, body: bytes) -> tuple[bytes, bytes | None]:
    """Return statement and data; data is None for what is no INSERT with data. The URL's part comes first."""
    text = query + b"\n" + body if query and body else query or body
    found = _DATA.search(text) if _INSERT.match(text) else None
    if found is None:
        return text.strip(), None
    head = text[: found.start()].rstrip()
    return head + b" FORMAT " + found[1], text[found.end() :]


def _record_batches(statement: bytes, data: bytes) -> int:
    return int(pa.ipc.open_file(data).num_record_batches) if statement.endswith(b" FORMAT Arrow") else 0


def _form(content_type: str, body: bytes) -> dict[str, str]:
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    fields = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]+)"', head)
        if name is not None:
            fields[name[1].decode()] = value.removesuffix(b"\r\n").decode()
    return fields


def _identifier(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def chdb_connection(path: Path) -> Any:
    """Return a connection to the engine on a path; raise EngineMissing where chDB is not installed."""
    try:
        chdb = importlib.import_module("chdb")
    except ImportError as error:
        raise EngineMissing("needs the extra [embedded]") from error
    return chdb.connect(str(path.resolve()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal, or until stdin closes; print `{"port": N}` when ready."""
    parser = argparse.ArgumentParser(
        prog="python -m batcher.testing.clickhouse",
        description="Speak ClickHouse's HTTP protocol on loopback for an embedded chDB.",
    )
    parser.add_argument("--path", type=Path, required=True, help="directory of the engine")
    parser.add_argument("--port", type=int, default=8123, help="0 takes a free one")
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="read users as one JSON object from the first line of stdin and stop when it closes",
    )
    options = parser.parse_args(arguments)
    users = json.loads(sys.stdin.readline()) if options.until_stdin_closes else {"default": ""}
    # Kept open: chDB shuts the engine down with its last connection, and a start takes seconds.
    engine = chdb_connection(options.path)
    engine.query("SELECT 1")
    handler = type("Handler", (_EngineHandler,), {"state": _State(options.path, users)})
    with _EngineServer(("127.0.0.1", options.port), handler) as server:
        sys.stdout.write(json.dumps({"port": server.server_address[1]}) + "\n")
        sys.stdout.flush()
        if options.until_stdin_closes:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            sys.stdin.read()
            server.shutdown()
        else:
            server.serve_forever()
    engine.close()
    return 0
