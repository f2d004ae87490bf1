"""A schema registry from Maven Central: Apicurio, which runs on Java 17 and keeps its schemas in Kafka.

It speaks Confluent's protocol under a path of its own, except that it knows no GUIDs. Version 3.3 needs Java 21.
"""

from __future__ import annotations

import hashlib
import os
import signal
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from batcher.embedded.jars import Unavailable, cache_dir, fetched, run_maven
from batcher.embedded.server import LocalServer, got
from batcher.embedded.tether import free_ports

APICURIO_VERSION: Final = "3.0.9"
APICURIO_SHA256: Final = "2b28181501a20cbf6efcd77f9b7153908fc01f3d3a7c32024c0bd9e1b04c8a43"
"""Of the archive, 109 MB."""

_WHAT: Final = f"Apicurio Registry {APICURIO_VERSION}"
_ARCHIVE: Final = f"apicurio-registry-app-{APICURIO_VERSION}-all.tar.gz"
_RUNNER: Final = f"apicurio-registry-app-{APICURIO_VERSION}-runner.jar"


def apicurio_jars() -> Path:
    """Return the directory with Apicurio's jars, downloading them if this is the first call on this machine.

    Raise Unavailable without Java, or without Maven where there is something to download.
    """
    return fetched(cache_dir() / f"apicurio-{APICURIO_VERSION}" / "app", _WHAT, _download)


class Apicurio(LocalServer):
    """Run Apicurio Registry on a free port of loopback (see `LocalServer`).

    Its schemas are in topics of the Kafka at `bootstrap`, which have to be creatable there; two servers on one Kafka
    share them, and they stay there after it was ended. Raise Unavailable where Java or the jars are missing, or when it
    does not come up.
    """

    what = _WHAT
    prefix = "batcher-apicurio-"
    start_timeout_s = 120.0
    """13 seconds on a quiet machine; several times that where all cores are taken."""
    look_every_s = 0.1
    stops_by = signal.SIGTERM

    def __init__(self, bootstrap: str) -> None:
        super().__init__()
        [self._port] = free_ports(1)
        self._bootstrap = bootstrap

    @property
    def url(self) -> str:
        """Return where it answers as Confluent's registry does."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def shut_down(self) -> None:
        """End it in good order; `start` brings it back."""
        self._end(signal.SIGTERM)

    def fetch(self) -> Path:
        return apicurio_jars() / _RUNNER

    def _command(self, directory: Path) -> Sequence[str]:
        del directory
        java = ["java", "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return [*java, "-jar", str(self.fetch())]

    def _environment(self) -> Mapping[str, str]:
        return os.environ | {
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(self._port),
            "APICURIO_STORAGE_KIND": "kafkasql",
            "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": self._bootstrap,
        }

    def _is_ready(self) -> bool:
        try:
            got(f"http://127.0.0.1:{self._port}/health/ready")
        except OSError:
            return False
        return True


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
