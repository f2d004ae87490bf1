"""What is wrong with a command line or the settings.

Not part of `batcher.errors`, which loads the columnar library: a mistyped flag is answered at once.
"""

from __future__ import annotations

from collections.abc import Sequence


class UsageError(Exception):
    """Refuse a command line or settings: one line for each fault. Exit code 2, or 78 where no flag is to blame."""

    def __init__(self, lines: Sequence[str], exit_code: int = 2) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)
        self.exit_code = exit_code
