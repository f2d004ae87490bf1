"""Tell whether a process of this machine that wrote its name into a file still runs."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path


def own_process() -> str:
    """Return a name of this process that no other has had, as far as the system tells."""
    pid = os.getpid()
    return f"{_machine()} {pid} {_state(pid)[1]}"


def has_ended(process: str) -> bool:
    """Return whether the process of this name has certainly ended; False where that cannot be seen from here."""
    machine, pid, born = process.split(" ")
    if machine != _machine() or not pid.isdecimal():
        return False
    if not born:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    state, now_born = _state(int(pid))
    # A dead process whose parent has not looked keeps its number; a number that is free is given to another.
    return now_born != born or state in "ZX"


@cache
def _machine() -> str:
    """Name where numbers of processes mean the same: this boot of the machine, and the namespace of the container."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink().name}"
    return platform.node().replace(" ", "-") or "?"


def _state(pid: int) -> tuple[str, str]:
    """Return the state of a process and when it began, empty where there is none or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    # The name of the program comes before, in parentheses, and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]
