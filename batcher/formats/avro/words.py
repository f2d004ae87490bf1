"""Values as JSON text: where a column cannot have their type, because it is one of several or holds itself."""

from __future__ import annotations

import base64
import json
import math
from typing import Final

import numpy as np
import pyarrow as pa

json_string: Final = json.JSONEncoder(ensure_ascii=False).encode
"""Quote a text."""


def json_number(number: float) -> str:
    """Return a float exactly; NaN and the infinities, for which JSON has no number, as text."""
    text = json.dumps(number)
    return text if math.isfinite(number) else f'"{text}"'


def json_bytes(octets: bytes) -> str:
    """Return bytes in Base64."""
    return f'"{base64.b64encode(octets).decode()}"'


def json_decimal(unscaled: int, scale: int) -> str:
    """Return all digits of a decimal as a number."""
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    point = len(digits) - scale
    return f"{'-' if unscaled < 0 else ''}{digits[:point]}{'.' if scale else ''}{digits[point:]}"


def json_time(value: int, kind: pa.DataType) -> str:
    """Return a date, time or timestamp in ISO 8601; the one moment that numpy has no text for as its number."""
    if pa.types.is_date(kind):
        return f'"{np.datetime64(value, "D")}"'
    if pa.types.is_time(kind):
        return f'"{str(np.datetime64(value, kind.unit)).partition("T")[2]}"'
    moment = np.datetime64(value, kind.unit)
    return str(value) if np.isnat(moment) else f'"{moment}{"Z" if kind.tz else ""}"'
