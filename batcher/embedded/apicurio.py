"""A schema registry from Maven Central: Apicurio, which runs on Java 17 and keeps its schemas in Kafka.

It speaks Confluent's protocol under a path of its own, except that it knows no GUIDs. Version 3.3 needs Java 21.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final, Self

from batcher.embedded.jars import Unavailable, cache_dir, fetched, run_maven
from batcher.embedded.tether import free_ports, tethered

APICURIO_VERSION: Final = "3.0.9"
APICURIO_SHA256: Final = "2b28181501a20cbf6efcd77f9b7153908fc01f3d3a7c32024c0bd9e1b04c8a43"
"""Of the archive, 109 MB."""

START_TIMEOUT_S: Final = 120.0
"""13 seconds on a quiet machine; several times that where all cores are taken."""

STOP_TIMEOUT_S: Final = 15.0

_WHAT: Final = f"Apicurio Registry {APICURIO_VERSION}"
_ARCHIVE: Final = f"apicurio-registry-app-{APICURIO_VERSION}-all.tar.gz"
_RUNNER: Final = f"apicurio-registry-app-{APICURIO_VERSION}-runner.jar"


def apicurio_jars() -> Path:
    """Return the directory with Apicurio's jars, downloading them if this is the first call on this machine.

    Raise Unavailable without Java, or without Maven where there is something to download.
    """
    return fetched(cache_dir() / f"apicurio-{APICURIO_VERSION}" / "app", _WHAT, _download)


class Apicurio:
    """Run Apicurio Registry while in the `with` block, on a free port of loopback.

    Its schemas are in topics of the Kafka at `bootstrap`, which have to be creatable there; two servers on one Kafka
    share them. Start it from a thread that lives as long as it is needed: on Linux it dies with that thread. Raise
    Unavailable where Java or the jars are missing, or when it does not come up.
    """

    def __init__(self, bootstrap: str) -> None:
        [self._port] = free_ports(1)
        self._bootstrap = bootstrap
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Return where it answers as Confluent's registry does."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def start(self) -> None:
        """Start it and wait until it answers; after `shut_down`, with the schemas it had. It may run already."""
        if self._process is not None:
            return
        runner = apicurio_jars() / _RUNNER
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="batcher-apicurio-"))
        given = {
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(self._port),
            "APICURIO_STORAGE_KIND": "kafkasql",
            "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": self._bootstrap,
        }
        java = ["java", "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", str(runner)]
        with (self._directory / "apicurio.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (a fixed command)
                tethered(java),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env={**os.environ, **given},
            )
        self._wait_until_ready(self._directory / "apicurio.log")

    def shut_down(self) -> None:
        """End it in good order; `start` brings it back."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it and remove its log; the schemas stay in Kafka. A second call is harmless."""
        self.shut_down()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _wait_until_ready(self, log: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            if self._is_ready():
                return
            time.sleep(0.1)
        self.shut_down()
        raise Unavailable(f"{_WHAT} did not start within {START_TIMEOUT_S:.0f} s: see {log}")

    def _is_ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self._port}/health/ready", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _download(maven: str, scratch: Path) -> Path:
    artifact = f"io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all"
    run_maven(
        _WHAT, [maven, "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={scratch}/archive"]
    )
    archive = scratch / "archive" / _ARCHIVE
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != APICURIO_SHA256:
        raise Unavailable(f"{_WHAT} from Maven is not the archive it should be: its SHA-256 is {digest}")
    place = scratch / "app"
    with tarfile.open(archive) as packed:
        packed.extractall(place, filter="data")
    return place
