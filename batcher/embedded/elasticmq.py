"""A queue that speaks SQS from Maven Central: ElasticMQ, in memory. It is strict about receipts, as tests want it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from batcher.embedded.jars import cache_dir, fetched, with_dependencies
from batcher.embedded.server import LocalServer, got
from batcher.embedded.tether import free_ports

ELASTICMQ_VERSION: Final = "1.7.1"

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
    wanted = [("org.elasticmq", "elasticmq-server_2.13", ELASTICMQ_VERSION)]
    place = cache_dir() / f"elasticmq-{ELASTICMQ_VERSION}" / "lib"
    return fetched(place, _WHAT, partial(with_dependencies, _WHAT, wanted))


class ElasticMQ(LocalServer):
    """Run ElasticMQ on a free port of loopback (see `LocalServer`); its messages end with it.

    Raise Unavailable where Java or the jars are missing, or when it does not come up.
    """

    what = _WHAT
    prefix = "batcher-elasticmq-"
    start_timeout_s = 60.0
    """Two seconds on a quiet machine; several times that where all cores are taken."""

    def __init__(self) -> None:
        super().__init__()
        [self._port] = free_ports(1)

    @property
    def endpoint(self) -> str:
        """Return where it answers."""
        return f"http://127.0.0.1:{self._port}"

    def kill(self) -> None:
        """End it at once; `start` brings it back on the same port, without its queues."""
        self._end(signal.SIGKILL)

    def fetch(self) -> Path:
        return elasticmq_jars()

    def _command(self, directory: Path) -> Sequence[str]:
        config = directory / "elasticmq.conf"
        config.write_text(_CONFIG.format(port=self._port), encoding="utf-8")
        java = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dconfig.file={config}"]
        return [*java, "-cp", f"{self.fetch()}/*", "org.elasticmq.server.Main"]

    def _is_ready(self) -> bool:
        try:
            got(f"{self.endpoint}/health")
        except OSError:
            return False
        return True
