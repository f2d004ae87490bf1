"""Say which properties librdkafka does not accept, so that people find them.

Its own messages name no file, and sometimes name a property by another name than the one that was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from batcher.errors import ConfigurationError, SettingRefused

SUFFIXES: Final = (".location", ".file", ".keytab")
NO_FILE: Final = frozenset({"", "probe"})

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "compression.codec": ("compression.type",),
    "fetch.message.max.bytes": ("max.partition.fetch.bytes",),
    "max.in.flight": ("max.in.flight.requests.per.connection",),
    "max.in.flight.requests.per.connection": ("max.in.flight",),
    "message.send.max.retries": ("retries",),
    "message.timeout.ms": ("delivery.timeout.ms",),
    "queue.buffering.max.ms": ("linger.ms",),
    "request.required.acks": ("acks",),
    "retries": ("message.send.max.retries",),
    "sasl.mechanisms": ("sasl.mechanism",),
}
"""The other name under which a property may have been given that librdkafka complains about."""

_PROPERTY: Final = re.compile(
    r'property:? "?([A-Za-z0-9._]+)"?|`?\b([a-z0-9]+(?:\.[a-z0-9]+)+)`? ?(?:failed|is mandatory|must be)'
)


@contextmanager
def accepted(properties: Mapping[str, object], whose: str = "") -> Iterator[None]:
    """Turn what librdkafka says, while a client is made from properties in this context, into an error for people.

    Raise SettingRefused, naming the property, for what it does not accept. Raise ConfigurationError, naming property
    and file, for a file that cannot be read or is something else. `whose` says which client it was, where there are
    several.
    """
    check_files(properties)
    try:
        yield
    except (KafkaException, TypeError, ValueError) as error:
        raise _refusal(error, properties, f" ({whose})" if whose else "") from error


def check_files(properties: Mapping[str, object]) -> None:
    """Raise ConfigurationError, naming property and file, for the first file that cannot be read."""
    for name, value in sorted(properties.items()):
        if names_file(name) and isinstance(value, str) and value not in NO_FILE:
            try:
                path = Path(value)
                if path.is_dir():
                    list(path.iterdir())
                else:
                    path.open("rb").close()
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "no path"
                raise ConfigurationError(f"-X {name}: {value!r} cannot be read: {reason}; check the path") from error


def names_file(name: str) -> bool:
    """Return whether the value of a property is the path of a file."""
    return name.endswith(SUFFIXES)


def _refusal(exception: Exception, properties: Mapping[str, object], whose: str) -> ConfigurationError:
    error = exception.args[0] if isinstance(exception, KafkaException) else None
    said = " ".join((error.str() if isinstance(error, KafkaError) else str(exception)).split())
    found = _PROPERTY.search(said)
    name = (found[1] or found[2]) if found else ""
    if name not in properties:
        name = next((alias for alias in ALIASES.get(name, ()) if alias in properties), name)
    if names_file(name):
        return ConfigurationError(f"-X {name}: {str(properties.get(name))!r} is not what it should be: {said}{whose}")
    if isinstance(error, KafkaError) and error.code() != KafkaError._INVALID_ARG:  # noqa: SLF001  librdkafka's own code
        # No thread or no memory for the client: no property is to blame.
        return ConfigurationError(f"the Kafka client cannot be made: {said} ({error.name()}){whose}")
    return SettingRefused(f"-X{f' {name}' if name else ''}: {said}{whose}; -X list shows the properties there are")
