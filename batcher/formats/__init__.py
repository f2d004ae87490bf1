"""Formats: raw bytes into columns. A format is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from batcher.errors import ConfigurationError
from batcher.protocols import Format

FORMATS: Final = {"json": "batcher.formats.json.format:JsonFormat"}
"""Name of each format and where its factory is; the factory works without arguments."""


def load(name: str) -> Callable[..., Format]:
    """Return the factory of a format; it takes that format's options and works without any.

    Raise ConfigurationError when there is no such format.
    """
    if name not in FORMATS:
        raise ConfigurationError(f"--decode.format {name}: no such format, there is: {', '.join(sorted(FORMATS))}")
    module, attribute = FORMATS[name].split(":")
    factory: Any = getattr(import_module(module), attribute)
    return factory  # type: ignore[no-any-return]
