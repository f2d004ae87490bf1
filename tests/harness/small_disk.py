"""A file system of a few megabytes that only the processes of its namespace see."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """Know how to get onto a small file system, and to look at it from outside."""

    SIZE_BYTES = 8 << 20

    def __init__(self, path: Path, holder: int, *, in_user_namespace: bool) -> None:
        self.path = path
        self.outside = Path(f"/proc/{holder}/root{path}")
        namespaces = ["--user", "--preserve-credentials"] if in_user_namespace else []
        self.prefix = ["nsenter", "--target", str(holder), "--mount", *namespaces, "--wd", "--"]
        self._ballast = self.outside / "ballast"

    def leave_free(self, free_bytes: int) -> None:
        self._ballast.write_bytes(bytes(self.SIZE_BYTES - free_bytes))

    def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def mounted_in(directory: Path) -> Iterator[SmallDisk]:
    """Mount one below a directory for as long as the context is open, or skip with the reason why that cannot be."""
    mounted = directory / "disk"
    mounted.mkdir()
    maps = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = f"mount -t tmpfs -o size={SmallDisk.SIZE_BYTES} batcher '{mounted}' && echo mounted && read -r _"
    try:
        holder = subprocess.Popen(
            ["unshare", "--mount", *maps, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        pytest.skip("no small file system: there is no unshare here")
    with holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip("no small file system: this user may not mount one in a namespace of its own")
        yield SmallDisk(mounted, holder.pid, in_user_namespace=bool(maps))
