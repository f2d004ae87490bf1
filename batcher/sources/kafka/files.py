"""Files that a property names, looked at by us: librdkafka's words for one that cannot be read name no file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from batcher.errors import ConfigurationError

SUFFIXES: Final = (".location", ".file", ".keytab")
NO_FILE: Final = frozenset({"", "probe"})


def check_files(properties: Mapping[str, str]) -> None:
    """Raise ConfigurationError, naming property and file, for the first file that cannot be read."""
    for name, value in sorted(properties.items()):
        if names_file(name) and value not in NO_FILE:
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
    """Tell whether the value of a property is the path of a file."""
    return name.endswith(SUFFIXES)
