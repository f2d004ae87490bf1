"""Give the section of Kafka to a verb that works on Kafka only."""

from __future__ import annotations

from batcher.settings import Settings, UsageError, section_of
from batcher.sources.kafka.settings import Kafka


def kafka_of(settings: Settings, verb: str) -> Kafka:
    """Return the section of Kafka. Raise UsageError for a verb that has no use for another source."""
    section = section_of(settings, "source")[1]
    # A share group has the settings of Kafka, and no log of its own.
    if not isinstance(section, Kafka) or settings.source == "share":
        raise UsageError([f"{verb}: works with --source kafka only, and --source is {settings.source}"])
    return section
