"""A queue that speaks SQS from Maven Central: ElasticMQ, in memory. It is strict about receipts, as tests want it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final, Self

from batcher.embedded.jars import Unavailable, cache_dir, fetched, run_maven
from batcher.embedded.tether import free_ports, tethered

ELASTICMQ_VERSION: Final = "1.7.1"

START_TIMEOUT_S: Final = 60.0
"""Two seconds on a quiet machine; several times that where all cores are taken."""

STOP_TIMEOUT_S: Final = 10.0

REGION: Final = "elasticmq"

_WHAT: Final = f"ElasticMQ {ELASTICMQ_VERSION}"

_CONFIG: Final = """\
include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = "127.0.0.1", sqs-limits = strict }}
rest-stats {{ enabled = false }}
generate-node-address = false
"""


def elasticmq_jars() -> Path:
    """Return the directory with ElasticMQ's jars, downloading them if this is the first call on this machine.

    Raise Unavailable without Java, or without Maven where there is something to download.
    """
    return fetched(cache_dir() / f"elasticmq-{ELASTICMQ_VERSION}" / "lib", _WHAT, _download)


class ElasticMQ:
    """Run ElasticMQ while in the `with` block, on a free port of loopback; its messages end with it.

    Start it from a thread that lives as long as it is needed: on Linux it dies with that thread. Raise Unavailable
    where Java or the jars are missing, or when it does not come up.
    """

    def __init__(self) -> None:
        [self._port] = free_ports(1)
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Return where it answers."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it answers. Does nothing while it runs."""
        if self._process is not None:
            return
        jars = elasticmq_jars()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="batcher-elasticmq-"))
        config = self._directory / "elasticmq.conf"
        config.write_text(_CONFIG.format(port=self._port), encoding="utf-8")
        java = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dconfig.file={config}"]
        command = [*java, "-cp", f"{jars}/*", "org.elasticmq.server.Main"]
        log = self._directory / "elasticmq.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603 (a fixed command)
                tethered(command), stdout=file, stderr=subprocess.STDOUT, cwd=self._directory
            )
        self._wait_until_ready(log)

    def kill(self) -> None:
        """End it at once; `start` brings it back on the same port, without its queues."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """End it and remove its log. A second call is harmless."""
        self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _wait_until_ready(self, log: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            if self._is_ready():
                return
            time.sleep(0.05)
        self.kill()
        raise Unavailable(f"{_WHAT} did not start within {START_TIMEOUT_S:.0f} s: see {log}")

    def _is_ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.endpoint}/health", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _download(maven: str, scratch: Path) -> Path:
    pom = scratch / "pom.xml"
    pom.write_text(_POM, encoding="utf-8")
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    run_maven(_WHAT, [*command, f"-DoutputDirectory={scratch}/lib", "-DincludeScope=runtime"])
    return scratch / "lib"


_POM: Final = (
    '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
    "<groupId>batcher.testing</groupId><artifactId>queue</artifactId><version>1</version><dependencies>"
    "<dependency><groupId>org.elasticmq</groupId><artifactId>elasticmq-server_2.13</artifactId>"
    f"<version>{ELASTICMQ_VERSION}</version></dependency></dependencies></project>"
)
