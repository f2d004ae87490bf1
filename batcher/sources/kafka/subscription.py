"""Which topics a subscription stands for. Expressions are matched here, because client and brokers have other dialects.

librdkafka reads them as POSIX expressions, a broker (`group.protocol=consumer`) as RE2 expressions of the whole name,
and Python, which checks the settings, as its own. So all names are asked for, and the list of matches is subscribed to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from batcher.errors import ConfigurationError

INTERNAL: Final = "__"
"""The names of Kafka's own topics begin like this (`__consumer_offsets`). They are read only when they are named."""


def is_expression(wanted: str) -> bool:
    """Return whether an entry of the subscription is a regular expression."""
    return wanted.startswith("^")


def compiled(wanted: str) -> re.Pattern[str]:
    """Return the expression, in Python's dialect. Raise ConfigurationError with the place of a mistake."""
    try:
        return re.compile(wanted)
    except re.error as error:
        where = "" if error.pos is None else f" (at character {error.pos + 1})"
        raise ConfigurationError(f"-t {wanted!r} is no regular expression: {error.msg}{where}") from error
    except (OverflowError, RecursionError) as error:
        raise ConfigurationError(f"-t {wanted!r} is no regular expression: it is too large or too deep") from error


def matches(wanted: str, names: Iterable[str], excluded: frozenset[str]) -> list[str]:
    """Return the names that an expression stands for, ascending: no internal topic, and none of `excluded`."""
    pattern = compiled(wanted)
    return sorted(
        name for name in names if name not in excluded and not name.startswith(INTERNAL) and pattern.search(name)
    )
