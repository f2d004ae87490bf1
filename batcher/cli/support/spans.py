"""Spans of time and counts as people read them at a glance."""

from __future__ import annotations


def span(seconds: float) -> str:
    """Return a span in its two largest units at most: `8 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 1 else f"{whole} s"
    parts = [(whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min")]
    while not parts[0][0]:
        parts.pop(0)
    # Minutes are noise beside days, and seconds beside minutes.
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 dead letter`, `2,000 dead letters`, `3 batches`."""
    ending = "" if count == 1 else "es" if noun.endswith(("ch", "x")) else "s"
    return f"{count:,} {noun}{ending}"
