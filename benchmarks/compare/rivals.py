"""The rivals by name, and how one gets its turn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batcher.embedded.jars import Unavailable
from benchmarks.compare.environments import REQUIREMENTS, ROOT, python_of
from benchmarks.harness import Measured, TurnFailed, reason_of

TURN_TIMEOUT_S: Final = 1800


@dataclass(frozen=True, slots=True)
class Rival:
    """Describe a rival.

    `target` is where its rows go: parquet or clickhouse. An `environment` of "" is the one that runs the benchmark.
    Those `in_python` are the ones batcher promises a distance to. `whole` ones read all records, the others a share.
    """

    module: str
    target: str
    environment: str = ""
    flags: tuple[str, ...] = ()
    in_python: bool = True
    whole: bool = False
    needs: str = ""


def _engine(shape: str) -> Rival:
    return Rival("clickhouse_engine", "clickhouse", flags=("--shape", shape), in_python=False, whole=True)


RIVALS: Final[Mapping[str, Rival]] = {
    "naive-parquet": Rival("naive", "parquet", flags=("--to", "parquet")),
    "naive-columns": Rival("naive", "clickhouse", flags=("--to", "columns")),
    "naive-msgspec": Rival("naive", "clickhouse", flags=("--to", "msgspec")),
    "kafka-engine-usual": _engine("usual"),
    "kafka-engine-best": _engine("best"),
    "spark": Rival("spark", "parquet", "spark", in_python=False, whole=True, needs="java"),
    "quix": Rival("quix", "parquet", "quix"),
    "arroyo": Rival("arroyo", "parquet", "arroyo"),
    "bytewax": Rival("bytewax", "parquet", "bytewax"),
}


def ready(name: str, environments: Path) -> Path:
    """Return the Python that runs a rival, set up with what it needs; raise Unavailable with the reason if not."""
    rival = RIVALS[name]
    if rival.needs and shutil.which(rival.needs) is None:
        raise Unavailable(f"{name} needs {rival.needs}, which is not on the PATH")
    return python_of(rival.environment, environments) if rival.environment else Path(sys.executable)


def versions(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the pinned versions of each environment that the rivals use."""
    used = {RIVALS[name].environment for name in names} - {""}
    return {name: (REQUIREMENTS / f"{name}.txt").read_text().split() for name in sorted(used)}


def measure(name: str, python: Path, bootstrap: str, topic: str, records: int) -> Measured:
    """Give a rival its turn; raise TurnFailed if it fails, and so if a row is missing."""
    rival = RIVALS[name]
    # What is on our path must not be found before what is in the rival's environment.
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryDirectory(prefix="batcher-compare-") as scratch:
        command = [str(python), "-m", f"benchmarks.compare.{rival.module}", bootstrap, topic, str(records), scratch]
        command += rival.flags
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=TURN_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TurnFailed(f"did not end within {TURN_TIMEOUT_S} s") from error
    if done.returncode:
        raise TurnFailed(f"exit code {done.returncode}: {reason_of(done.stderr)}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))
