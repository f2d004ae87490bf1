"""Numbers on the command line."""

from __future__ import annotations

import argparse


def whole(text: str) -> int:
    """Return a number from 1 on, `_` between its digits allowed, as argparse wants it."""
    digits = text.replace("_", "")
    if not digits.isascii() or not digits.isdecimal() or int(digits) < 1:
        raise argparse.ArgumentTypeError("is a whole number from 1 on")
    return int(digits)
