"""Run batcher as a process of its own and watch it from outside: its log events, its signals, its memory, its summary.

with BatcherProcess("--sink", "my_module:MySink", "-b", broker.bootstrap, "-t", topic, "-g", group) as running:
    running.wait_for("batch_written")
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert running.summary["written"] > 0

What comes to its end by itself, `run` runs; `run_code` does so with a program of Python, `run_shell` with one of bash:

done = run("dlq", "stats", "--dlq.path", path, "--json")
assert done.code == 0, done.stderr
assert done.facts["records"] == 3
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self, TypeVar

from tests.harness.patience import PATIENCE_S

_T = TypeVar("_T")

Event = Mapping[str, Any]
"""One line of the log: `event` is its name."""

SHOWN_LINES: Final = 15
"""Lines of the log that a failure shows."""


SHORT_SESSION: Final = ("-X", "session.timeout.ms=3000", "-X", "heartbeat.interval.ms=200")
"""Flags with which the broker misses a process that was killed soon, and not after Kafka's 45 seconds."""

ROOT: Final = Path(__file__).parents[2]

# A setting of the shell that runs the tests must not become one of the tests.
_SETTINGS: Final = ("BATCHER_", "CLICKHOUSE_", "OTEL_")
# But for this one: with `off`, all tests run without the native extension.
_PATH: Final = "BATCHER_NATIVE"


class Ending(NamedTuple):
    """Say how a process ended: its exit code, or minus the number of a signal, and all that it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> Sequence[Any]:
        """Return what `--json` printed, one object a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the last object that `--json` printed."""
        found: Mapping[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return found


def clean_environment(**added: str) -> dict[str, str]:
    """Return this process's variables without settings of batcher, and with others.

    A process with another working directory finds the project of this one as well.
    """
    inherited = {name: text for name, text in os.environ.items() if name == _PATH or not name.startswith(_SETTINGS)}
    path = os.pathsep.join(filter(None, (str(ROOT), inherited.get("PYTHONPATH"))))
    return {**inherited, "PYTHONPATH": path, **added}


def run(
    *arguments: str,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    module: str = "batcher",
    timeout_s: float = 120.0,
) -> Ending:
    """Run `python -m batcher`, or another module, to its end; raise TimeoutExpired when that takes too long.

    `environment` and `directory` are as in `BatcherProcess`.
    """
    return _ended([sys.executable, "-m", module, *arguments], stdin, environment, directory, timeout_s)


def run_code(code: str, *, stdin: str = "", timeout_s: float = 120.0) -> Ending:
    """Run a program in a Python of its own, as `run` does."""
    return _ended([sys.executable, "-c", code], stdin, None, None, timeout_s)


def run_shell(
    script: str,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout_s: float = 120.0,
) -> Ending:
    """Run a script in bash, as `run` does."""
    return _ended(["bash", "-c", script], "", environment, directory, timeout_s)


def _ended(
    command: Sequence[str],
    stdin: str,
    environment: Mapping[str, str] | None,
    directory: Path | None,
    timeout_s: float,
) -> Ending:
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        env=clean_environment(**(environment or {})),
        cwd=directory,
        check=False,
        timeout=timeout_s,
    )
    return Ending(done.returncode, done.stdout, done.stderr)


class BatcherProcess:
    """Run `python -m batcher` with `--json` and its log as JSON, from `with` to the end of the block.

    `environment` is added to this process's variables, less those that are settings of batcher; `directory` is the
    working directory, where modules of `--sink module:attribute` are found. `prefix` is put before the command
    and has to `exec` it (`nsenter`, `prlimit`, `nice`), so that signals reach batcher. `module` is run in the place
    of `batcher` and takes the same arguments (`tests.harness.crash_points`).
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        prefix: Sequence[str] = (),
        module: str = "batcher",
    ) -> None:
        self._command = [*prefix, sys.executable, "-m", module, *arguments, "--json"]
        self._environment = clean_environment(BATCHER_LOG_FORMAT="json", **(environment or {}))
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._output: list[str] = []
        self._errors: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for stream, keep in ((self._process.stdout, self._output.append), (self._process.stderr, self._heard)):
            reader = threading.Thread(target=self._read, args=(stream, keep), daemon=True)
            reader.start()
            self._readers.append(reader)

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._started.pid

    @property
    def events(self) -> Sequence[Event]:
        """Return the events logged so far, oldest first."""
        with self._changed:
            return tuple(self._events)

    @property
    def stderr(self) -> str:
        """Return everything written to stderr so far, log events included."""
        return "".join(self._errors)

    @property
    def stdout(self) -> str:
        """Return everything written to stdout so far."""
        return "".join(self._output)

    @property
    def summary(self) -> Mapping[str, Any]:
        """Return the summary that `--json` printed; raise RuntimeError before the end, or where there is none."""
        self._require(self._started.poll() is not None, "has not ended")
        self._require(bool(self._output), "printed no summary")
        found: Mapping[str, Any] = json.loads(self._output[-1])
        return found

    def named(self, event: str) -> Sequence[Event]:
        """Return the events of a name logged so far."""
        return [one for one in self.events if one["event"] == event]

    def wait_for(
        self,
        event: str,
        *,
        count: int = 1,
        after: int = 0,
        where: Callable[[Event], bool] = lambda _: True,
        timeout_s: float = PATIENCE_S,
    ) -> Event:
        """Return the `count`th event of a name that `where` accepts, once it is logged.

        The first `after` events of the log, whatever their names, do not count. Raise TimeoutError when it does not
        come, RuntimeError when the process ends without it; both show the end of the log.
        """

        def found() -> Event | None:
            those = [one for one in self._events[after:] if one["event"] == event and where(one)]
            return those[count - 1] if len(those) >= count else None

        return self._wait(found, event, timeout_s)

    def wait_for_text(self, text: str, timeout_s: float = PATIENCE_S) -> str:
        """Return the first line on stderr that has a text in it, event or not, as `wait_for` does."""
        return self._wait(lambda: next((line for line in self._errors if text in line), None), text, timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._started.send_signal(number)

    def suspend(self) -> None:
        """Freeze the process: its connections stay open, and nothing of it runs until `resume`."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self.signal(signal.SIGCONT)

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, minus the number of the signal that killed it; None while it runs."""
        return self._started.poll()

    def kill(self) -> None:
        """End the process at once, as a crash would. Twice is harmless."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._finish_reading()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Return the exit code; raise TimeoutError, showing the end of the log, when there is none in that time."""
        try:
            code = self._started.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"still running after {timeout_s:.0f} s\n{self._tail()}") from error
        self._finish_reading()
        return code

    def memory_bytes(self, field: str = "VmRSS") -> int:
        """Return a figure of `/proc/PID/status`: `VmRSS` is what is in memory now, `VmHWM` the most so far. Linux."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
        self._require(found is not None, f"has no {field}")
        assert found is not None
        return int(found[1]) * 1024

    @property
    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the process has not been started")
        return self._process

    def _wait(self, look: Callable[[], _T | None], what: str, timeout_s: float) -> _T:
        """Return what `look` finds, once that is something; raise TimeoutError or RuntimeError."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                ended = not any(reader.is_alive() for reader in self._readers)
                if (found := look()) is not None:
                    return found
                self._require(not ended, f"ended without {what}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"no {what} within {timeout_s:.0f} s\n{self._tail()}")
                # Short, because the end of a reader is not announced.
                self._changed.wait(min(left, 0.2))

    def _read(self, stream: IO[str], keep: Callable[[str], object]) -> None:
        with stream:
            for line in stream:
                keep(line)

    def _heard(self, line: str) -> None:
        event = _parsed(line)
        with self._changed:
            self._errors.append(line)
            if event is not None:
                self._events.append(event)
            self._changed.notify_all()

    def _finish_reading(self) -> None:
        for reader in self._readers:
            reader.join(5.0)  # a grandchild may still hold the pipe

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise RuntimeError(f"batcher {otherwise}\n{self._tail()}")

    def _tail(self) -> str:
        return "".join(self._errors[-SHOWN_LINES:])


def _parsed(line: str) -> Event | None:
    """Return the event of a line, or None for one that is none: a traceback, a driver's message."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None
