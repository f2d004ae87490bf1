"""This machine: what is installed, disks, limits."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from batcher.cli.support.doctor.finding import HealthFinding, doubtful, fine, wrong
from batcher.cli.support.places import local_paths, lost_with_the_container, nearest
from batcher.errors import ConfigurationError
from batcher.options import show_size
from batcher.settings import Settings

MIB: Final = 1 << 20

LEAST_FREE: Final = 1 << 30
LEAST_FILES: Final = 1024
"""Connections to each broker, files of a batch, and what drivers hold; systems give this many or more."""

BASE_BYTES: Final = 400 * MIB
"""A process at the default sizes, with a backlog to read (docs/operations.md, Memory)."""

EMBEDDED_BYTES: Final = 300 * MIB
"""What the embedded ClickHouse takes besides."""

DEFAULT_BYTES: Final = 48 * MIB
"""The raw records in that process."""


def installed(settings: Settings) -> Iterator[HealthFinding]:
    """Make every part that the settings name, without opening any: what is not installed is missed here."""
    from batcher.cli.support import wiring

    makers: list[tuple[str, Callable[[Settings], Any]]] = [
        (f"source {settings.source}", wiring.source_of),
        (f"format {settings.decode.format}", wiring.format_of),
        (f"sink {settings.sink}", wiring.routes_of if settings.route else wiring.sink_of),
        ("dead-letter queue", wiring.dead_letters_of),
        ("off switch", wiring.switch_of),
    ]
    bad = False
    for what, make in makers:
        try:
            make(settings)
        except ConfigurationError as error:
            bad = True
            yield wrong("parts", f"{what}: {error}", error.exit_code)
    if not bad:
        version = ".".join(str(part) for part in sys.version_info[:3])
        yield fine("parts", f"source, format, sink and all they need are installed (Python {version})")
    yield from _native(settings)
    yield from _otel()


def _native(settings: Settings) -> Iterator[HealthFinding]:
    from batcher import native

    if settings.native == "off":
        return
    if native.version():
        yield fine("native", f"the native extension {native.version()} is there")
    elif settings.native == "require":
        yield wrong("native", "--native require, and it is not installed: pip install 'kafka-batcher[native]'")
    else:
        yield doubtful("native", "not installed, so JSON is decoded by Python: pip install 'kafka-batcher[native]'")


def _otel() -> Iterator[HealthFinding]:
    from importlib.util import find_spec

    from batcher.cli.support import wiring
    from batcher.telemetry.otel.exporter import MISSING

    asked = wiring.export_request()
    for refused in asked.refused:
        yield doubtful("otel", refused)
    if not (asked.traces or asked.metrics):
        return
    if find_spec("opentelemetry") is None:
        yield doubtful("otel", MISSING)
    else:
        found = [what for what, to in (("traces", asked.traces), ("metrics", asked.metrics)) if to]
        yield fine("otel", f"{' and '.join(found)} will be exported to OpenTelemetry")


def disks(settings: Settings) -> Iterator[HealthFinding]:
    """Look at the directories that the settings name: there, writable, with room."""
    for what, path in local_paths(settings):
        there = nearest(path)
        free = shutil.disk_usage(there).free
        if not os.access(there, os.W_OK | os.X_OK):
            yield wrong(
                "disk", f"{what} {path}: {there} cannot be written to; give this user the right, or another path"
            )
        elif free < max(LEAST_FREE, 4 * int(settings.batch.max_bytes)):
            yield wrong("disk", f"{what} {path}: {free / MIB:,.0f} MiB are free; make room or give another path")
        elif not _inodes(there):
            yield wrong("disk", f"{what} {path}: no file can be made there, its inodes are used up")
        else:
            yield fine(
                "disk", f"{what} {path}: {free / (1 << 30):,.1f} GiB free{'' if path == there else ', made anew'}"
            )
    for what, path in lost_with_the_container(settings):
        yield doubtful("disk", f"{what} {path}: lost with the container; mount a volume there")


def _inodes(path: Path) -> bool:
    found = os.statvfs(path)
    # Some file systems do not count them.
    return found.f_favail > 0 or found.f_files == 0


def limits(settings: Settings) -> Iterator[HealthFinding]:
    """Look at what the system lets a process have: open files, and memory for all workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        shown = "no limit" if hard == resource.RLIM_INFINITY else str(hard)
        yield doubtful(
            "limits", f"{soft} open files; give {LEAST_FILES} (ulimit -n, LimitNOFILE=; it may go up to {shown})"
        )
    else:
        yield fine("limits", f"{'any number of' if soft == resource.RLIM_INFINITY else soft} open files")
    need, have = _needed(settings), _memory()
    if have is None:
        yield doubtful("memory", f"about {need / MIB:,.0f} MiB are needed; how much there is cannot be told")
        return
    shown = f"about {need / MIB:,.0f} MiB are needed, {have / MIB:,.0f} MiB are there"
    if have < need:
        yield wrong(
            "memory", f"{shown}; lower --batch.memory ({show_size(settings.batch.memory)}) or --workers, or give more"
        )
    else:
        yield fine("memory", shown)


def _needed(settings: Settings) -> int:
    batch = settings.batch
    # Two batches in columns beside the raw records, and those of a quarter more than they are raw.
    extra = max(int(batch.memory) - DEFAULT_BYTES, 0) + max(int(2.5 * batch.max_bytes) - 60 * MIB, 0)
    dsn = getattr(getattr(settings, "clickhouse", None), "dsn", None)
    embedded = settings.sink == "clickhouse" and str(dsn and dsn.get_secret_value()).startswith("chdb")
    return (BASE_BYTES + extra + (EMBEDDED_BYTES if embedded else 0)) * int(settings.workers)


def _memory() -> int | None:
    """Return the bytes that a new process may have: of the container if there is one, else what is available."""
    found = [amount for amount in (_available(), _of_container()) if amount is not None]
    return min(found, default=None)


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _of_container() -> int | None:
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
            return int(text) if text != "max" else None
        except (OSError, ValueError):
            continue
    return None
