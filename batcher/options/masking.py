"""Keep secrets out of everything that people and logs see."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from pydantic import BaseModel, SecretStr

HIDDEN: Final = "***"

# By name, because a property of a future librdkafka or ClickHouse version is not in any list. `key` also
# hides locations of key files, which is harmless; `_key` coordinates never come through here. How the keys of records
# are read is no secret.
_SECRET_NAME: Final = re.compile(
    r"pass|secret|token|key(?!_(?:format|framing|writer_schema)$)|pem|authorization|connection.string|sasl\.username|sasl\.jaas|sasl\.oauthbearer\.config|credential",
    re.IGNORECASE,
)
# From the first colon to the last @: a password may hold what ends the host of a URL (@ / # ?), and then no parser
# takes all of it for the password.
_USERINFO: Final = re.compile(r"(?<=://)(?P<user>[^:\s]*):(?P<secret>.*)@", re.DOTALL)
_PARTS: Final = re.compile(r"[@/#?:]+")
"""The characters at which a parser may split a password that was not percent-encoded: the parts are as secret as the
whole."""
_PARAMETER: Final = re.compile(r"(?P<name>[^?&=\s]+)=(?P<secret>[^&\s]*)")


def masked_value(name: str, value: object) -> object:
    """Return a value as it may be shown under a name: secrets as `***`, also inside mappings and URLs."""
    if isinstance(value, BaseModel):
        return {key: masked_value(judged, item) for key, judged, item in _items(value)}
    if isinstance(value, Mapping):
        return {key: masked_value(str(key), item) for key, item in value.items()}
    if value in (None, "") or isinstance(value, bool | int | float):
        return value
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if _SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(text, str) and "://" in text:
        return masked_url(text)
    return HIDDEN if isinstance(value, SecretStr) else value


def unencoded_password(url: str) -> bool:
    """Return whether what may be the password of a URL holds a character that has to be percent-encoded there.

    It is also true of an `@` in the path after a port, which looks the same.
    """
    found = _USERINFO.search(url)
    return found is not None and "/" not in found["user"] and re.search(r"[@/#?]", found["secret"]) is not None


def masked_url(url: str) -> str:
    """Return the URL with the password of its user, and parameters named like secrets, as `***`."""
    base, question, query = _USERINFO.sub(rf"\g<user>:{HIDDEN}@", url).partition("?")
    return base + question + _PARAMETER.sub(_masked_parameter, query)


def _masked_parameter(match: re.Match[str]) -> str:
    return f"{match['name']}={HIDDEN}" if _SECRET_NAME.search(match["name"]) else match[0]


def secrets(model: BaseModel) -> Iterator[str]:
    """Yield every text in the settings that `masked_value` hides, so that logs can hide it wherever it turns up."""
    for _, judged, value in _items(model):
        yield from _secrets(judged, value)


def _secrets(name: str, value: object) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from secrets(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets(str(key), item)
    elif isinstance(value, str | SecretStr):
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if "://" in text:
            found = [match["secret"] for match in _USERINFO.finditer(text)]
            parameters = _PARAMETER.finditer(text.partition("?")[2])
            found += [match["secret"] for match in parameters if _SECRET_NAME.search(match["name"])]
            yield from found
            yield from map(unquote, found)  # a driver's message may have either form
            yield from (part for one in found for part in _PARTS.split(one))
        elif isinstance(value, SecretStr) or _SECRET_NAME.search(name):
            yield text


def _items(model: BaseModel) -> Iterator[tuple[str, str, object]]:
    """Yield the name of each field, the name that it is judged by, and its value."""
    for name, field in type(model).model_fields.items():
        called = field.alias or name
        public = any(getattr(one, "public", False) for one in field.metadata)
        yield called, "" if public else called, getattr(model, name)
