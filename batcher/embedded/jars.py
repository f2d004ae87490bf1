"""Apache Kafka from Maven Central, fetched once into a cache that several processes may share."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.3.1"
LOG4J_VERSION: Final = "2.25.1"

DOWNLOAD_TIMEOUT_S: Final = 600
"""92 jars, 54 MB: ten seconds on a good line."""

_DEPENDENCIES: Final = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
    ("org.apache.logging.log4j", "log4j-core", LOG4J_VERSION),
)


class Unavailable(Exception):
    """Report, with the reason, that a test server cannot be had on this machine."""


def cache_dir() -> Path:
    """Return where downloads are kept: `BATCHER_TEST_CACHE`, or `kafka-batcher` in the user's cache."""
    named = os.environ.get("BATCHER_TEST_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kafka-batcher"


def kafka_jars() -> Path:
    """Return the directory with Kafka's jars, downloading them if this is the first call on this machine.

    Raise Unavailable without Java, or without Maven where there is something to download.
    """
    if shutil.which("java") is None:
        raise Unavailable("no java on the PATH (17 or newer)")
    home = cache_dir() / f"kafka-{KAFKA_VERSION}"
    jars = home / "lib"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable(f"no mvn on the PATH, and no jars of Kafka {KAFKA_VERSION} in {jars}")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        # The second process waits here and then finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _download(maven, home, jars)
    return jars


def _download(maven: str, home: Path, jars: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_text(_pom(), encoding="utf-8")
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        command += [f"-DoutputDirectory={scratch}/lib", "-DincludeScope=runtime"]
        try:
            done = subprocess.run(  # noqa: S603 (a fixed command)
                command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"Maven did not fetch Kafka {KAFKA_VERSION} within {DOWNLOAD_TIMEOUT_S} s") from error
        if done.returncode != 0:
            lines = [line for line in done.stdout.splitlines() if "ERROR" in line] or ["no message"]
            raise Unavailable(f"Maven could not fetch Kafka {KAFKA_VERSION}: {lines[0][:300]}")
        # A rename within one directory: the final name always holds all of them.
        (Path(scratch) / "lib").rename(jars)


def _pom() -> str:
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        for group, artifact, version in _DEPENDENCIES
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>batcher.testing</groupId><artifactId>broker</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )
