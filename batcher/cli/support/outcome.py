"""Say on stderr how a command ended and give its exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TypeGuard

INTERRUPTED = 130


def exit_code(error: BaseException) -> int:
    """Return the exit code for what ended a command: 1 for a bug.

    Errors are recognised by their `exit_code`: importing their classes here would load the columnar library.
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    code = getattr(error, "exit_code", None)
    return code if isinstance(code, int) else 1


def is_bug(error: BaseException) -> bool:
    """Return whether the error was not foreseen, so that its traceback is needed."""
    return not isinstance(error, KeyboardInterrupt) and not hasattr(error, "exit_code")


def explained(error: BaseException) -> int:
    """Print an error as people need it and return its exit code.

    The user's or the world's mistakes get one line. A bug gets a traceback, without secrets.
    """
    from batcher.telemetry.logs import one_line, scrubbed_traceback

    if isinstance(error, BrokenPipeError):
        return _reader_gone()
    if _is_full(error):
        _say(f"batcher: the output cannot be written: {error.strerror}")
    elif is_bug(error):
        _say(f"batcher: a bug, please report it:\n{scrubbed_traceback(error)}")
    elif not isinstance(error, KeyboardInterrupt):
        for line in getattr(error, "lines", (str(error),)):
            _say(f"batcher: {one_line(line)}")
    return exit_code(error)


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # full, or the reader has gone: the exit code still says it
        print(text, file=sys.stderr, flush=True)


def _is_full(error: BaseException) -> TypeGuard[OSError]:
    """Return whether the standard output takes nothing more; errors of our own files have a name in them."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO) and error.filename is None


def _reader_gone() -> int:
    # `batcher config show | head`: a closed pipe is no fault, and the interpreter's last flush must not call it one.
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  # only the descriptor is wanted
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 0
