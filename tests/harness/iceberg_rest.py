"""A REST catalog of Iceberg from Maven Central: the server of its own tests, with a catalog in memory and files on disk."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from batcher.embedded.jars import cache_dir, fetched, run_maven, with_dependencies
from batcher.embedded.server import LocalServer, got
from batcher.embedded.tether import free_ports

ICEBERG_VERSION: Final = "1.10.1"
HADOOP_VERSION: Final = "3.4.1"

_WHAT: Final = f"Iceberg's REST catalog {ICEBERG_VERSION}"

_DEPENDENCIES: Final = (
    ("org.apache.iceberg", "iceberg-core", ICEBERG_VERSION),
    ("org.apache.hadoop", "hadoop-client-api", HADOOP_VERSION),
    ("org.apache.hadoop", "hadoop-client-runtime", HADOOP_VERSION),
    ("org.eclipse.jetty", "jetty-servlet", "11.0.26"),
    ("org.eclipse.jetty", "jetty-server", "11.0.26"),
    ("org.xerial", "sqlite-jdbc", "3.50.3.0"),
    ("org.slf4j", "slf4j-simple", "2.0.17"),
)

_CLASSIFIED: Final = (
    f"org.apache.iceberg:iceberg-open-api:{ICEBERG_VERSION}:jar:test-fixtures",
    f"org.apache.iceberg:iceberg-core:{ICEBERG_VERSION}:jar:tests",
)
"""Their own dependencies are build tools; what they need to run is listed above."""


def rest_jars() -> Path:
    """Return the directory with the server's jars, downloading them if this is the first call on this machine.

    Raise Unavailable without Java, or without Maven where there is something to download.
    """
    return fetched(cache_dir() / f"iceberg-rest-{ICEBERG_VERSION}" / "lib", _WHAT, _download)


def _download(maven: str, scratch: Path) -> Path:
    lib = with_dependencies(_WHAT, _DEPENDENCIES, maven, scratch)
    for artifact in _CLASSIFIED:
        run_maven(_WHAT, [maven, "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={lib}"])
    return lib
