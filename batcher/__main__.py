"""Run the command line as a process: `python -m batcher` and the console script `batcher`."""

from __future__ import annotations

import os
import sys
import threading

from batcher.cli.support import early, streams, tuning


def main() -> None:
    """Run the command line and end the process with its exit code, also when a thread hangs."""
    early.listen(sys.argv[1:])
    streams.open_all()
    tuning.spare_threads()
    from batcher.cli.main import main as run_command_line  # noqa: PLC0415  # only now, so that a signal is heard meanwhile

    code = run_command_line()
    streams.let_go()
    if threading.active_count() > 1:
        # A daemon thread inside a C call (a write that does not return) can block the end of the interpreter.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
