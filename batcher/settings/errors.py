"""What is wrong with a command line or the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


class UsageError(Exception):
    """Refuse a command line or settings, wherever they came from: one line for each fault.

    It is the error for what is known to be wrong without asking a broker or a target. Exit code 2.
    """

    exit_code: Final = 2

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)
