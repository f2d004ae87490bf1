"""Servers from Maven Central, fetched once into a cache that several processes may share: here Apache Kafka."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
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
    what = f"Kafka {KAFKA_VERSION}"
    return fetched(
        cache_dir() / f"kafka-{KAFKA_VERSION}" / "lib", what, partial(with_dependencies, what, _DEPENDENCIES)
    )


def fetched(place: Path, what: str, download: Callable[[str, Path], Path]) -> Path:
    """Return a directory of jars, which is downloaded once for all processes.

    `download` is given the path of Maven and an empty directory, and returns the directory inside it that becomes
    `place`. Raise Unavailable as `kafka_jars` does.
    """
    if shutil.which("java") is None:
        raise Unavailable("no java on the PATH (17 or newer)")
    if place.is_dir():
        return place
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable(f"no mvn on the PATH, and no jars of {what} in {place}")
    return made_once(place, partial(download, maven))


def made_once(place: Path, make: Callable[[Path], Path]) -> Path:
    """Return a directory, which is made once for all processes.

    `make` is given an empty directory, and returns the directory inside it that becomes `place`.
    """
    home = place.parent
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        # The second process waits here and then finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=home) as scratch:
                # A rename within one directory: the final name always holds all of it.
                make(Path(scratch)).rename(place)
    return place


def with_dependencies(what: str, dependencies: Sequence[tuple[str, str, str]], maven: str, scratch: Path) -> Path:
    """Fetch artifacts (group, artifact, version) and what they need; return the directory of the jars, for `fetched`.

    Raise Unavailable when Maven cannot have them.
    """
    pom = scratch / "pom.xml"
    listed = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        for group, artifact, version in dependencies
    )
    pom.write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>batcher.testing</groupId><artifactId>server</artifactId><version>1</version>"
        f"<dependencies>{listed}</dependencies></project>",
        encoding="utf-8",
    )
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    run_maven(what, [*command, f"-DoutputDirectory={scratch}/lib", "-DincludeScope=runtime"])
    return scratch / "lib"


def run_maven(what: str, command: Sequence[str]) -> None:
    """Run Maven to download something; raise Unavailable when it cannot be had."""
    try:
        done = subprocess.run(  # noqa: S603 (a fixed command)
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"Maven did not fetch {what} within {DOWNLOAD_TIMEOUT_S} s") from error
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if "ERROR" in line] or ["no message"]
        raise Unavailable(f"Maven could not fetch {what}: {lines[0][:300]}")
