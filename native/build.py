"""Build the native extension for the Python that runs this, where that can be done, and say in one line what was done.

`python native/build.py STAMP` is what `make setup` runs. It never fails: without the extension Python does the same.
What was built once is kept in the user's cache, by a hash of its source.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

HERE = Path(__file__).parent
TIMEOUT_S = 180
WITHOUT = "Python fetches and decodes by itself, with the same outcome (docs/development.md)"


def main(stamp: Path) -> None:
    """Build, or take from the cache, and touch the stamp."""
    print(f"native extension: {_installed()}", file=sys.stderr)
    stamp.touch()


def _installed() -> str:
    place = Path(sysconfig.get_path("platlib")) / "batcher_native.abi3.so"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "batcher"
    kept = cache / f"native-{_hash()}-{sys.platform}-{platform.machine()}.so"
    if kept.exists():
        _copy(kept, place)
        return "taken from the cache"
    cargo = shutil.which("cargo")
    if cargo is None:
        return f"not built, there is no cargo; {WITHOUT}"
    began = time.monotonic()
    # Python provides its symbols to a module that it loads.
    environment = os.environ | {"PYO3_PYTHON": sys.executable, "PYO3_BUILD_EXTENSION_MODULE": "1"}
    command = [cargo, "build", "--release", "--locked", "--quiet", "--manifest-path", str(HERE / "Cargo.toml")]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"not built, cargo took more than {TIMEOUT_S} s; {WITHOUT}"
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("error")] or [f"code {done.returncode}"]
        return f"not built, cargo says {reasons[0]}; {WITHOUT}"
    target = Path(os.environ.get("CARGO_TARGET_DIR") or HERE / "target") / "release"
    built = next(
        (target / name for name in ("libbatcher_native.so", "libbatcher_native.dylib") if (target / name).exists()),
        None,
    )
    if built is None:
        return f"not built, cargo left nothing in {target}; {WITHOUT}"
    _copy(built, place)
    with contextlib.suppress(OSError):  # the next clone builds it again
        _copy(built, kept)
    return f"built in {time.monotonic() - began:.0f} s"


def _hash() -> str:
    found = hashlib.sha256()
    for file in sorted([HERE / "Cargo.toml", HERE / "Cargo.lock", *(HERE / "src").glob("**/*.rs")]):
        found.update(f"{file.relative_to(HERE)}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def _copy(source: Path, place: Path) -> None:
    """Copy in one step: a process that has the old one loaded keeps it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.copy(source, fresh)
    fresh.replace(place)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
