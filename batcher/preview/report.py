"""Print what records are like: for people, or as one JSON object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from batcher.preview.fields import FieldProfile
from batcher.preview.shape import Shape

_HEADS = ("field", "type", "with a value", "different", "like")


def lines(shape: Shape) -> Iterator[str]:
    """Yield the lines that say what records are like."""
    yield f"{', '.join(shape.topics)}: {shape.looked_at:,} of {shape.log_offsets:,} records looked at{_apart(shape)}"
    yield ""
    yield from columns_of([_HEADS, *(_cells(one) for one in shape.fields)])
    if shape.mixed:
        yield ""
        yield f"values of several types: give --decode.text {','.join(shape.mixed)} to load them as JSON text"
    for note in shape.notes:
        yield f"note: {note}"


def facts(shape: Shape) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "topics": list(shape.topics),
        "looked_at": shape.looked_at,
        "log_offsets": shape.log_offsets,
        "rows": shape.rows,
        "rejected": dict(shape.rejected),
        "skipped": shape.skipped,
        "filtered": shape.filtered,
        "fields": [
            {
                "path": one.path,
                "type": str(one.kind),
                "rows": one.rows,
                "values": one.values,
                "distinct": one.distinct,
                "example": one.example,
            }
            for one in shape.fields
        ],
        "mixed": list(shape.mixed),
        "notes": list(shape.notes),
    }


def columns_of(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows of cells below each other; the last cell is as long as it is."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        yield "  ".join([*cells, row[-1]]).rstrip()


def counted(reasons: dict[str, int] | Any) -> str:
    """Return counts by reason as people read them."""
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())


def _apart(shape: Shape) -> str:
    parts = []
    if shape.rejected:
        parts.append(f"{sum(shape.rejected.values()):,} cannot be read ({counted(shape.rejected)})")
    if shape.filtered:
        parts.append(f"{shape.filtered:,} are filtered by the transform")
    if shape.skipped > shape.filtered:
        parts.append(f"{shape.skipped - shape.filtered:,} have no value")
    return "; " + "; ".join(parts) if parts else ""


def _cells(one: FieldProfile) -> tuple[str, ...]:
    kind = str(one.kind)
    return (
        one.path,
        kind if len(kind) <= 40 else kind[:39] + "…",
        f"{one.values / one.rows:.0%}" if one.rows else "-",
        "-" if one.distinct is None else f"{one.distinct:,}",
        one.example,
    )
