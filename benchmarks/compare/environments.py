"""A virtual environment for each rival that needs one, made on demand and kept in the user's cache."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Final

from batcher.embedded.jars import Unavailable, cache_dir

REQUIREMENTS: Final = Path(__file__).parent / "requirements"
ROOT: Final = Path(__file__).resolve().parents[2]

INSTALL_TIMEOUT_S: Final = 900
"""The largest is half a gigabyte."""

AFTER_INSTALLING: Final = {"spark": ("-m", "benchmarks.compare.spark", "--fetch")}
"""What else has to be fetched, as arguments for the environment's Python."""


def default_directory() -> Path:
    """Return where the environments are kept unless a flag says otherwise."""
    return cache_dir() / "compare"


def python_of(name: str, directory: Path) -> Path:
    """Return the Python of an environment, setting it up if this is its first use; raise Unavailable if that fails."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.lock").open("w") as lock:
        # The second process waits here and then finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready(name, directory):
            print(f"setting up {name} in {directory / name}", file=sys.stderr, flush=True)
            _set_up(name, directory / name)
    return _python(name, directory)


def is_ready(name: str, directory: Path) -> bool:
    """Return whether the environment is there with the versions that are wanted today."""
    mark = directory / name / ".ready"
    return mark.is_file() and mark.read_text() == _wanted(name)


def _python(name: str, directory: Path) -> Path:
    return directory / name / "bin" / "python"


def _wanted(name: str) -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}\n{(REQUIREMENTS / f'{name}.txt').read_text()}"


def _set_up(name: str, home: Path) -> None:
    python = str(home / "bin" / "python")
    _run(name, [sys.executable, "-m", "venv", "--clear", str(home)])
    _run(name, [python, "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS / f"{name}.txt")])
    if name in AFTER_INSTALLING:
        _run(name, [python, *AFTER_INSTALLING[name]])
    # Written last: without it the environment is made anew.
    (home / ".ready").write_text(_wanted(name))


def _run(name: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{name} was not set up within {INSTALL_TIMEOUT_S} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "rror" in line] or ["no message"]
        raise Unavailable(f"{name} could not be set up: {lines[0].strip()[:300]}")
