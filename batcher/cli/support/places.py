"""The files and directories of this machine that a run writes to, and those of them that end with a container."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from batcher.options import Section
from batcher.settings import Settings, section_of
from batcher.settings.reference import flag_of

MARKS: Final = ("/.dockerenv", "/run/.containerenv")
"""Files that Docker and Podman put into a container."""

LAYERS: Final = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs", "btrfs", "zfs"})
"""File systems from which Docker, Podman and containerd make the root of a container. That of a machine whose image was
made as a container's has the mark, and a disk."""

MOUNTS: Final = Path("/proc/self/mountinfo")


def local_paths(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield the flag and the absolute path of each place on a disk that the chosen parts write to."""
    sections: list[tuple[str, Section | None]] = [("dlq", settings.dlq)]
    sections += [section_of(settings, kind) for kind in ("sink", "source")]
    for name, section in sections:
        for field, text in section.written_to() if section is not None else ():
            if path := _local(text):
                yield flag_of((name, field)), path


def lost_with_the_container(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield the places that are in a container's own layer, which is gone when it is replaced."""
    mounts = _mounts() if in_container() else {}
    if mounts.get(Path("/")) not in LAYERS:
        return
    for flag, path in local_paths(settings):
        # A path may be on a mount by way of a link.
        there = path.resolve()
        if next(one for one in (there, *there.parents) if one in mounts) == Path("/"):
            yield flag, path


def in_container() -> bool:
    """Return whether this process is in a container, as far as its runtime says so."""
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(Path(mark).exists() for mark in MARKS)


def _mounts() -> dict[Path, str]:
    """Return the kind of file system at each place where one is mounted; nothing where the system does not say."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        # The fifth field is the place, and the kind comes after a lone dash; a space and the like are written in octal
        # (man proc_pid_mountinfo).
        fields, _, rest = line.partition(" - ")
        place = re.sub(r"\\([0-7]{3})", lambda one: chr(int(one[1], 8)), fields.split()[4])
        found[Path(place)] = rest.split()[0]
    return found


def nearest(path: Path) -> Path:
    """Return the path, or the nearest directory above it that is there."""
    return next((one for one in (path, *path.parents) if one.exists()), path)


def _local(text: str) -> Path | None:
    if text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    return Path(text).absolute() if text and "://" not in text else None
