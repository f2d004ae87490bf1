"""What of an input is not sent: why, how often, and where for the first time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum


class SkipReason(StrEnum):
    """Say why a line of a file, or a row of a table, is not sent."""

    EMPTY = "empty"
    NO_SEPARATOR = "no_separator"
    NOT_JSON = "not_json"
    NO_KEY_FIELD = "no_key_field"
    NO_KEY = "no_key"
    NO_TIMESTAMP = "no_timestamp"
    BAD_TIMESTAMP = "bad_timestamp"
    TOO_EARLY = "too_early"
    TOO_LATE = "too_late"
    TOO_LARGE = "too_large"
    WRONG_WIDTH = "wrong_width"
    BAD_QUOTES = "bad_quotes"
    NOT_UTF8 = "not_utf8"
    NOT_A_NUMBER = "not_a_number"
    REPEATED_KEY = "repeated_key"

    @property
    def words(self) -> str:
        """Return the reason as it stands behind a number of lines."""
        return _WORDS[self]


_WORDS: Mapping[SkipReason, str] = {
    SkipReason.EMPTY: "empty",
    SkipReason.NO_SEPARATOR: "without --key-separator",
    SkipReason.NOT_JSON: "not a JSON object, so without the fields asked for",
    SkipReason.NO_KEY_FIELD: "without the field of --key",
    SkipReason.NO_KEY: "without a key, which the compacted topic demands",
    SkipReason.NO_TIMESTAMP: "without the field of --timestamp-field",
    SkipReason.BAD_TIMESTAMP: "with a --timestamp-field that is no time that can be sent",
    SkipReason.TOO_EARLY: "with a time before what the topic takes (message.timestamp.before.max.ms)",
    SkipReason.TOO_LATE: "with a time after what the topic takes (message.timestamp.after.max.ms)",
    SkipReason.TOO_LARGE: "larger than -X message.max.bytes",
    SkipReason.WRONG_WIDTH: "with more or fewer cells than the header",
    SkipReason.BAD_QUOTES: "with quotes that are not those of CSV",
    SkipReason.NOT_UTF8: "not in UTF-8",
    SkipReason.NOT_A_NUMBER: "with a cell of --numbers that is no number of JSON",
    SkipReason.REPEATED_KEY: "with a map that has a key twice",
}


class Skipped:
    """Count what is not sent, by reason, and keep where each reason was first met."""

    def __init__(self) -> None:
        self.counts: Counter[SkipReason] = Counter()
        self.first: dict[SkipReason, str] = {}

    def add(self, reason: SkipReason, source: str, number: int) -> None:
        """Count a line or row of a source by its number."""
        self.counts[reason] += 1
        if reason not in self.first:
            self.first[reason] = f"{source}:{number}"

    @property
    def faulty(self) -> int:
        """Return how many were skipped for another reason than that there is nothing in them."""
        return self.counts.total() - self.counts[SkipReason.EMPTY]
