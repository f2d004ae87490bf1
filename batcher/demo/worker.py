"""The pipeline as a process of its own: the command that a user would type, its log read line by line."""

from __future__ import annotations

import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal

_DIES_WITH_PARENT: Final = (
    "import ctypes, os, signal, sys; "
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL); "  # PR_SET_PDEATHSIG
    "os.execv(sys.executable, sys.argv[1:])"
)
"""A pipeline waits for its brokers for ever. If the demo is killed, they are gone and nothing would end it."""

_STATES: Final[Mapping[str, str]] = {
    "pipeline_started": "waits for its partitions",
    "partitions_assigned": "running",
    "stopping": "draining",
}

Event = Mapping[str, Any] | None
"""An event of the log, None where none came in time."""

_ENDED: Final[Mapping[str, Any]] = {"event": ""}


class DemoWorker:
    """Start one pipeline process; its log is appended to `log`. `next_event` returns what it logs."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        command = [sys.executable, "-m", "batcher", *arguments]
        if sys.platform == "linux":
            command = [sys.executable, "-c", _DIES_WITH_PARENT, *command]
        self._process = subprocess.Popen(  # noqa: S603  # our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # The user's settings must not change the demo's pipeline.
            env={name: value for name, value in os.environ.items() if not name.startswith(("BATCHER_", "CLICKHOUSE_"))},
            # Ctrl-C goes to the demo, which ends the pipeline in its own order.
            process_group=0,
        )
        self.pid = self._process.pid
        self.batches = 0
        self.state = "starting"
        self.last_words = ""
        self._events: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr, log), daemon=True)
        self._reader.start()

    def next_event(self, timeout_s: float) -> Event:
        """Return the next event of the log, None after the timeout; once it has ended, the event is empty."""
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if event is _ENDED:
            self._events.put(_ENDED)
        return event

    def kill(self) -> None:
        """End the process as a crash does, at once."""
        self._process.kill()

    def stop(self) -> None:
        """Ask for a drain."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit code, or None when the process has not ended in time."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join()
        return code

    def _read(self, pipe: IO[bytes], path: Path) -> None:
        with pipe, path.open("ab") as log:
            for line in pipe:
                log.write(line)
                log.flush()
                event = _parsed(line)
                self.state = _STATES.get(event["event"], self.state)
                if event["event"] == "batch_written":
                    self.batches += 1
                elif event.get("level", "error") in ("error", "critical"):
                    self.last_words = str(event.get("reason", event["event"]))
                self._events.put(event)
        self._events.put(_ENDED)


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) and "event" in event else {"event": line.decode(errors="replace").strip()}


def typed(program: Literal["batcher", "python"]) -> str:
    """Return how to call a program of this environment from the shell: by its name where the PATH has it."""
    python = Path(sys.executable)
    wanted = python if program == "python" else python.parent / program
    if not wanted.exists():
        return f"{typed('python')} -m {program}"
    if shutil.which(wanted.name) == str(wanted):
        return wanted.name
    return shlex.quote(str(wanted.relative_to(Path.cwd()) if wanted.is_relative_to(Path.cwd()) else wanted))
