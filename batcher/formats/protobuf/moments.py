"""Google's types of times: which of their values mean something, and what."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from typing import Final

FIRST_SECOND: Final = -62_135_596_800
LAST_SECOND: Final = 253_402_300_799
"""A Timestamp is from 0001-01-01 to the end of 9999 (google/protobuf/timestamp.proto)."""

LONGEST_S: Final = 315_576_000_000
"""A Duration has 10,000 years at most, in both directions (google/protobuf/duration.proto)."""

NANOS: Final = 10**9

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

NO_TIMESTAMP: Final = "seconds and nanos are no time from the years 1 to 9999"
NO_DURATION: Final = "seconds and nanos are no duration of up to 10000 years"
NO_DATE: Final = "year, month and day are no date; a date without one of them is none either"


def timestamp_text(seconds: int, nanos: int) -> str | None:
    """Return a time in ISO 8601, in UTC, with all its digits; None for what is none."""
    if not FIRST_SECOND <= seconds <= LAST_SECOND or not 0 <= nanos < NANOS:
        return None
    # The years from 1 on have four digits in ISO 8601, which strftime does not give to all of them.
    moment = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
    return f"{moment}{_fraction(nanos)}Z"


def duration_text(seconds: int, nanos: int) -> str | None:
    """Return a duration in seconds as a number with all its digits; None for what is none."""
    if abs(seconds) > LONGEST_S or abs(nanos) >= NANOS or seconds * nanos < 0:
        return None
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos))}"


def date_of(year: int, month: int, day: int) -> date | None:
    """Return a whole date; None for what is none, and for dates of which a part is not said."""
    if not 1 <= year <= 9999 or not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return date(year, month, day)


def _fraction(nanos: int) -> str:
    return f".{nanos:09}".rstrip("0") if nanos else ""
