"""A server of other people's making: one process with a directory of its own, for as long as it is needed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from batcher.embedded.jars import Unavailable
from batcher.embedded.tether import ended, tethered


class LocalServer(ABC):
    """Run a server while in the `with` block; `start` again after it was ended, with what it left in its directory.

    `what` names it for people, `prefix` begins the name of its directory. Start it from a thread that lives as long as
    it is needed: on Linux it dies with that thread.
    """

    what: str
    prefix: str
    start_timeout_s: float
    stop_timeout_s = 15.0
    look_every_s = 0.05
    """Between two looks whether it answers."""
    stops_by = signal.SIGKILL
    """How `stop` ends it."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers. It may run already. Raise Unavailable when it does not come up."""
        if self._process is not None:
            return
        self.fetch()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix=self.prefix))
        self._launch(self._directory)

    def stop(self) -> None:
        """End it and remove what it stored. A second call is harmless."""
        self._end(self.stops_by)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    @abstractmethod
    def fetch(self) -> Path:
        """Return where its program is, brought here if it is not yet. Raise Unavailable where that cannot be done."""

    @abstractmethod
    def _command(self, directory: Path) -> Sequence[str]:
        """Return the command that runs it in its directory."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether it answers."""

    def _environment(self) -> Mapping[str, str] | None:
        """Return the environment it runs in; None for ours."""
        return None

    def _log(self, directory: Path) -> Path:
        return directory / "log"

    def _launch(self, directory: Path) -> None:
        command = tethered(self._command(directory))
        log = self._log(directory)
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 (a fixed command)
                command, stdout=output, stderr=subprocess.STDOUT, cwd=directory, env=self._environment()
            )
        deadline = time.monotonic() + self.start_timeout_s
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._is_ready():
                return
            time.sleep(self.look_every_s)
        self._end(self.stops_by)
        said = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(said) if line), "nothing")[-300:]
        raise Unavailable(f"{self.what} did not start within {self.start_timeout_s:.0f} s: see {log}, at last: {last}")

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            ended(process, number, self.stop_timeout_s)


def got(url: str, body: bytes | None = None) -> bytes:
    """Return what a server on loopback answers; with a body, post it. Raise OSError, also for an error status."""
    # No proxy of the environment is for loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, data=body, timeout=5.0) as answer:
        return bytes(answer.read())
