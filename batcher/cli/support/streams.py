"""The streams of the process, however it was started: closed, full, or with a reader that has gone."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO


def open_all() -> None:
    """Open the null device in the place of streams that are closed (`2>&-`).

    Otherwise the next file or socket that is opened gets the number of the stream, and anything that a library prints
    there goes into it.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that was found closed.
            os.open(os.devnull, mode)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def let_go() -> None:
    """Flush both outputs. What cannot be written is given up, because it would make the interpreter end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # full, the reader has gone, or closed
            _discard(stream)


def _discard(stream: IO[str]) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
