"""Run the command line as a process: `python -m batcher` and the console script `batcher`."""

from __future__ import annotations

import contextlib
import os
import sys
import threading


def main() -> None:
    """Run the command line and end the process with its exit code, also when a thread hangs."""
    from batcher.cli import main as run_command_line  # noqa: PLC0415  # only now, so that an interrupt is caught below

    code = run_command_line()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the reader has gone
            stream.flush()
    if threading.active_count() > 1:
        # A daemon thread inside a C call (a write that does not return) can block the interpreter's own end.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
