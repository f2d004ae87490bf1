"""Say on stderr how a command ended and give its exit code."""

from __future__ import annotations

import os
import sys

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
    """Tell whether nobody foresaw the error, so that its traceback is needed."""
    return not isinstance(error, KeyboardInterrupt) and not hasattr(error, "exit_code")


def explained(error: BaseException) -> int:
    """Print an error as people need it and return its exit code.

    One line for what the user or the world did wrong; a traceback, without secrets, for a bug.
    """
    from batcher.logs import one_line, scrubbed_traceback

    if isinstance(error, BrokenPipeError):
        return _reader_gone()
    if is_bug(error):
        print(f"batcher: a bug, please report it:\n{scrubbed_traceback(error)}", file=sys.stderr)
    elif not isinstance(error, KeyboardInterrupt):
        for line in getattr(error, "lines", (str(error),)):
            print(f"batcher: {one_line(line)}", file=sys.stderr)
    return exit_code(error)


def _reader_gone() -> int:
    # `batcher config show | head`: a closed pipe is no fault, and the interpreter's last flush must not say it is.
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  # only the descriptor is wanted
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 0
