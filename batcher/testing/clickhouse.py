"""ClickHouse's HTTP protocol on loopback in front of chDB, with faults to inject; and chDB in this process.

`ClickHouseServer` is what a sink that speaks HTTP is tested against when there is no server. The engine, its error
codes, its deduplication and its types are real, because chDB is ClickHouse. It runs as a process of its own, since a
process can have chDB open on one path only. `EmbeddedEngine` is that one path for tests in this process.

    with ClickHouseServer(tmp_path / "db") as server:
        server.query("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
        server.inject("reset_after_apply")
        ...                                     # the next insert is applied, its answer lost
        assert server.inserts()[0].settings["async_insert"] == "0"

Both need the extra `[embedded]`. A real server has and this one has not: native protocol, TLS, sessions, quotas,
replication, progress headers, compressed answers, roles. Users have a password and everything else is allowed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import pyarrow as pa

from batcher.embedded.clickhouse_http import CONTROL, EngineMissing, FaultKind, HttpFault, Insert, chdb_connection, main

__all__ = ["ClickHouseServer", "EmbeddedEngine", "EngineMissing", "FaultKind", "Insert", "embedded_engine_missing"]


def embedded_engine_missing() -> str | None:
    """Return why chDB cannot be used here, as a reason to skip a test, or None."""
    return None if importlib.util.find_spec("chdb") else "needs the extra [embedded]"


class EmbeddedEngine:
    """Keep chDB open in this process, on the one path it can have; made by `shared`."""

    _shared: EmbeddedEngine | None = None
    _directory: tempfile.TemporaryDirectory[str] | None = None

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._connection = chdb_connection(self.path)

    @classmethod
    def shared(cls) -> EmbeddedEngine:
        """Return the engine of this process, starting it in a new temporary directory the first time."""
        if cls._shared is None:
            # Kept with the class: it is removed when the interpreter ends.
            cls._directory = tempfile.TemporaryDirectory(prefix="batcher-chdb-", ignore_cleanup_errors=True)
            cls._shared = cls(Path(cls._directory.name) / "db")
        return cls._shared

    def close(self) -> None:
        """Close the connection; nothing of this process can use the engine any more."""
        self._connection.close()

    @property
    def dsn(self) -> str:
        """Return what `--clickhouse.dsn` takes."""
        return f"chdb://{self.path}"

    def execute(self, sql: str) -> pa.Table:
        """Run a statement and return its rows as the engine gives them in Arrow; raise RuntimeError with its text."""
        answer = self._connection.query(sql, "ArrowStream").bytes()
        return pa.ipc.open_stream(answer).read_all() if answer else pa.table({})

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query and return its rows as they are in JSON; raise RuntimeError with the engine's text."""
        return _rows(self._connection.query(sql, "JSONCompactEachRow").bytes())


class ClickHouseServer:
    """Run the server as a process of its own, from `with` to the end of the block.

    `path` is the engine's directory. It is kept when the server stops, so that it can be started again on it. `users`
    maps names to passwords. `port` 0 takes a free one, and keeps it over a restart.
    """

    def __init__(self, path: Path, *, users: Mapping[str, str] | None = None, port: int = 0) -> None:
        reason = embedded_engine_missing()
        if reason:
            raise EngineMissing(reason)
        self.path = path
        self.port = port
        self._users = dict(users or {"default": ""})
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def dsn(self) -> str:
        """Return the address with the first user's name and password in it."""
        user, password = (quote(text, safe="") for text in next(iter(self._users.items())))
        return f"http://{user}:{password}@127.0.0.1:{self.port}"

    def start(self, timeout_s: float = 60.0) -> None:
        """Start, and return when queries are answered; raise RuntimeError if that takes too long."""
        command = [sys.executable, "-m", "batcher.testing.clickhouse", "--path", str(self.path)]
        command += ["--port", str(self.port), "--until-stdin-closes"]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(self._users) + "\n")
        process.stdin.flush()
        watchdog = threading.Timer(timeout_s, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        if not line:
            self.stop()
            raise RuntimeError(f"the ClickHouse test server did not start within {timeout_s} s")
        self.port = int(json.loads(line)["port"])

    def cpu_s(self) -> float:
        """Return the seconds of CPU that the process has taken."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop the process; a second call is harmless."""
        self._end(kill=False)

    def kill(self) -> None:
        """End the process as a crash would."""
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        if kill:
            process.kill()
        process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement over HTTP and return its rows as Python values; raise RuntimeError with the engine's text."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/?{urlencode({'default_format': 'JSONCompactEachRow'})}",
            data=sql.encode(),
            headers=self._authorization(),
        )
        return _rows(_answer(request))

    def inject(self, kind: FaultKind, *, times: int = 1, code: int = 0, delay_s: float = 0.0) -> None:
        """Let the next `times` inserts meet a fault; faults come in the order in which they were injected."""
        self._control("faults", asdict(HttpFault(kind, times, code, delay_s)))

    def clear(self) -> None:
        """Forget the faults still to come and the inserts seen."""
        self._control("clear", {})

    def inserts(self) -> list[Insert]:
        """Return the inserts seen, oldest first."""
        return [Insert(**insert) for insert in self._control("inserts", {})]

    def _control(self, name: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{CONTROL}{name}", data=json.dumps(body).encode())
        return json.loads(_answer(request))

    def _authorization(self) -> dict[str, str]:
        user, password = next(iter(self._users.items()))
        return {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}


def _rows(lines: bytes) -> list[tuple[Any, ...]]:
    return [tuple(json.loads(line)) for line in lines.splitlines()]


def _answer(request: urllib.request.Request) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - the scheme is ours
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(error.read().decode(errors="replace").strip()) from None


if __name__ == "__main__":
    raise SystemExit(main())
