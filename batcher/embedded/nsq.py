"""Servers of NSQ, built once from the Go module proxy into the same cache as the jars; they take a second to start."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from batcher.embedded.jars import Unavailable, cache_dir
from batcher.embedded.tether import free_ports, tethered

NSQ_VERSION: Final = "1.3.0"

BUILD_TIMEOUT_S: Final = 600
"""A minute on two cores."""

START_TIMEOUT_S: Final = 30.0
PORT_ATTEMPTS: Final = 3
STOP_TIMEOUT_S: Final = 15.0

_WHAT: Final = f"NSQ {NSQ_VERSION}"

# Only with the replacement: the module that NSQ names was moved, and `go install` takes no replacements.
_GO_MOD: Final = f"""\
module batcher.testing/nsq

go 1.21

require github.com/nsqio/nsq v{NSQ_VERSION}

replace github.com/judwhite/go-svc => github.com/mreiferson/go-svc v1.2.2-0.20210815184239-7a96e00010f6
"""


def nsq_programs() -> Path:
    """Return the directory with `nsqd` and `nsqlookupd`, built if this is the first call on this machine.

    Raise Unavailable without Go where there is something to build, and where it cannot be built.
    """
    place = cache_dir() / f"nsq-{NSQ_VERSION}" / "bin"
    if place.is_dir():
        return place
    go = shutil.which("go")
    if go is None:
        raise Unavailable(f"no go on the PATH, and no {_WHAT} in {place}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "lock").open("w") as lock:
        # The second process waits here and then finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
                _build(go, Path(scratch)).rename(place)
    return place


def _build(go: str, scratch: Path) -> Path:
    (scratch / "go.mod").write_text(_GO_MOD, encoding="utf-8")
    built = scratch / "bin"
    built.mkdir()
    apps = "github.com/nsqio/nsq/apps"
    command = [go, "build", "-mod=mod", "-o", f"{built}/", f"{apps}/nsqd", f"{apps}/nsqlookupd"]
    try:
        done = subprocess.run(  # noqa: S603 (a fixed command)
            command, cwd=scratch, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"Go did not build {_WHAT} within {BUILD_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise Unavailable(f"Go could not build {_WHAT}: {done.stderr.strip().splitlines()[-1][:300]}")
    return built


class NsqServer:
    """Run one of NSQ's programs on free ports of loopback, in a directory of its own; `start` again after `kill`.

    Start it from a thread that lives as long as it is needed: on Linux it dies with that thread. Raise Unavailable
    where it cannot be built, or when it does not come up.
    """

    program: str

    def __init__(self, *options: str) -> None:
        self._options = options
        # Two ports that follow one another, as NSQ has them by default: its HTTP is found above its TCP.
        self.port, self.http_port = adjacent_ports()
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Return where it is spoken to over TCP."""
        return f"127.0.0.1:{self.port}"

    @property
    def http_address(self) -> str:
        """Return where it answers HTTP."""
        return f"127.0.0.1:{self.http_port}"

    def start(self) -> None:
        """Start it and wait until it answers, with what its directory has. It may run already."""
        if self._process is not None:
            return
        program = nsq_programs() / self.program
        if self._directory is not None:
            self._launch(program, self._directory)
            return
        self._directory = Path(tempfile.mkdtemp(prefix=f"batcher-{self.program}-"))
        for attempt in range(PORT_ATTEMPTS):
            try:
                self._launch(program, self._directory)
            except Unavailable:
                if attempt == PORT_ATTEMPTS - 1:
                    raise
                # Somebody else may have taken one of the ports meanwhile.
                self.port, self.http_port = adjacent_ports()
            else:
                return

    def _launch(self, program: Path, directory: Path) -> None:
        command = [str(program), f"-tcp-address={self.address}", f"-http-address={self.http_address}"]
        log_path = directory / "log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (a fixed command)
                tethered([*command, *self._own_options(directory), *self._options]),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
            )
        self._wait_until_ready(log_path)

    def kill(self) -> None:
        """End it at once, by SIGKILL: what it had in memory is gone."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """End it in good order: what it had in memory goes to disk."""
        self._end(signal.SIGTERM)

    def freeze(self, *, frozen: bool) -> None:
        """Stop it without ending it, or let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove what it stored. A second call is harmless."""
        self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def get(self, path: str, body: bytes | None = None) -> bytes:
        """Ask it over HTTP; with a body, post it. Raise OSError."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{self.http_address}{path}", data=body, timeout=5.0) as answer:
            return bytes(answer.read())

    def log(self) -> str:
        """Return what it has logged."""
        return "" if self._directory is None else (self._directory / "log").read_text(encoding="utf-8")

    def _own_options(self, directory: Path) -> Sequence[str]:
        del directory
        return ()

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait_until_ready(self, log: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.get("/ping")
            except (OSError, http.client.HTTPException):
                # As long as it does not listen, a connection to a free port can be one to itself.
                time.sleep(0.01)
            else:
                return
        tail = log.read_text(encoding="utf-8", errors="replace")[-500:]
        self.kill()
        raise Unavailable(f"{self.program} did not start within {START_TIMEOUT_S:.0f} s: {os.linesep}{tail}")


class NsqLookupd(NsqServer):
    """Run nsqlookupd while in the `with` block."""

    program = "nsqlookupd"

    def _own_options(self, directory: Path) -> Sequence[str]:
        del directory
        return ("-broadcast-address=127.0.0.1",)


class Nsqd(NsqServer):
    """Run nsqd while in the `with` block; with `lookupd` it announces its topics there."""

    program = "nsqd"

    def __init__(self, *options: str, lookupd: NsqLookupd | None = None) -> None:
        super().__init__(*options)
        self._lookupd = lookupd

    def _own_options(self, directory: Path) -> Sequence[str]:
        # With a certificate it would listen on a fixed port for HTTPS as well.
        own = [f"-data-path={directory}", "-broadcast-address=127.0.0.1", "-https-address=127.0.0.1:0"]
        return own if self._lookupd is None else [*own, f"-lookupd-tcp-address={self._lookupd.address}"]


def adjacent_ports() -> tuple[int, int]:
    """Return two ports of loopback that nobody listens on now, the second one above the first."""
    while True:
        [port] = free_ports(1)
        if port < 65535 and _is_free(port + 1):
            return port, port + 1


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
