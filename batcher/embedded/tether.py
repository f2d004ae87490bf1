"""Servers of other people's making, started on ports of loopback and ended with the process that needs them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

# On Linux the kernel kills the server when its starter dies, even by SIGKILL (prctl 1 is PR_SET_PDEATHSIG).
_RUN_TETHERED: Final = (
    "import ctypes, os, sys\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, 9)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


def tethered(command: Sequence[str]) -> list[str]:
    """Return the command that runs another one; on Linux it ends when the thread that starts it does."""
    return [sys.executable, "-c", _RUN_TETHERED, *command]


def ended(process: subprocess.Popen[bytes], number: int, timeout_s: float) -> None:
    """Send a process a signal and return when it has ended: killed where that takes longer than `timeout_s`."""
    process.send_signal(number)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on now, no two the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
