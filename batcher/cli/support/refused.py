"""Say when a run has loaded nothing because everything was refused: that never ends with 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

ALL_REFUSED: Final = 78


def all_refused(facts: Mapping[str, Any]) -> str:
    """Return the message for a summary of which every record is a dead letter; empty where that is not so.

    With several targets it is enough that this is so for one of them.
    """
    letters = facts.get("dead_lettered", 0)
    if not letters or facts["written"] or facts["duplicates_suppressed"]:
        refusing = [name for name, one in facts.get("targets", {}).items() if _nothing_loaded(one)]
        return (
            f"not one record was loaded into {', '.join(refusing)}: all were refused and are in the dead-letter queue; "
            "see batcher dlq stats"
            if refusing
            else ""
        )
    reasons: Mapping[str, int] = facts["dead_letter_reasons"]
    most = max(reasons, key=lambda reason: reasons[reason], default="")
    said = f", most of them for {most} ({reasons[most]})" if most else ""
    return (
        f"not one record was loaded: {letters} of {facts['consumed']} were refused{said}; they are in the dead-letter "
        f"queue and committed. See batcher dlq stats, mend schema or table, then load them with batcher dlq replay"
    )


def _nothing_loaded(target: Mapping[str, Any]) -> bool:
    return bool(target["dead_lettered"]) and not target["written"] and not target["duplicates_suppressed"]
