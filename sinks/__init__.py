"""Find the targets that batcher can write to, without importing any of them before it is asked for.

A sink is made by a *plugin*: anything callable with one mapping of options that returns a
`batcher.protocols.Sink`. A class whose `__init__` takes the mapping is a plugin as it stands:

    class MySink:
        def __init__(self, options): ...
        def open(self): ...
        def write(self, block): ...
        def close(self): ...

A plugin is named in one of two ways: by the name of an entry point of the group `batcher.sinks`
(`my = "my_package:MySink"` in the package that has it), or, without any packaging, by where it is:
`my_module:MySink`. The three built-in names belong to batcher; no other package can take them over.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from batcher import __version__
from batcher.errors import ConfigurationError
from batcher.protocols import Sink

GROUP: Final = "batcher.sinks"
"""The entry point group in which packages announce their sinks."""

DISTRIBUTION: Final = "kafka-batcher"

# Repeats the entry points of our own pyproject.toml, so that a checkout works without being installed.
BUILT_IN: Final[Mapping[str, str]] = {
    "clickhouse": "sinks.clickhouse:plugin",
    "null": "sinks.null:plugin",
    "parquet": "sinks.parquet:plugin",
}

# Which extra of ours brings a module that the core install does not have.
EXTRAS: Final[Mapping[str, str]] = {"chdb": "embedded"}


class SinkPlugin(Protocol):
    """Make a sink from its options: a function, or a class whose `__init__` takes the mapping."""

    def __call__(self, options: Mapping[str, object], /) -> Sink:
        """Return a sink that is not open yet. Raise ConfigurationError for options that cannot work."""


class Description(NamedTuple):
    """Say where a named sink comes from: the distribution that announces it, and its version."""

    name: str
    origin: str
    version: str


def names() -> list[str]:
    """Return the names of the built-in and the installed sinks, sorted; imports none of them."""
    return sorted({*BUILT_IN, *(point.name for point in installed())})


def describe() -> list[Description]:
    """Return every named sink with its origin, sorted; imports none of them."""
    found = [Description(name, DISTRIBUTION, __version__) for name in BUILT_IN]
    found += [Description(point.name, owner(point), point.dist.version if point.dist else "?") for point in installed()]
    return sorted(found)


def load(name: str) -> SinkPlugin:
    """Import the plugin with this name, or at this `module:attribute`, and return it.

    Raise ConfigurationError when nothing has the name, when the import fails (naming the package
    to install when one is missing), and when what was found cannot be called.
    """
    if name in BUILT_IN:
        return imported(name, BUILT_IN[name], DISTRIBUTION)
    if ":" in name:
        # A console script does not have the working directory on its path, as `python -m` has. Last, so
        # that a file lying there cannot take the place of an installed module.
        here = str(Path.cwd())
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)
        return imported(name, name, None)
    points = [point for point in installed() if point.name == name]
    if not points:
        known = names()
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigurationError(
            f"--sink {name!r} is not known: {hint}known are {', '.join(known)}; "
            "a sink of your own is named as module:attribute"
        )
    if len(points) > 1:
        owners = " and ".join(sorted(owner(point) for point in points))
        raise ConfigurationError(f"--sink {name!r} is announced by {owners}: uninstall one, or use module:attribute")
    return imported(name, points[0].value, owner(points[0]))


def installed() -> list[EntryPoint]:
    """Return the entry points of other packages, each once, whose names are not ours."""
    # The same distribution can be found twice on the path: in a checkout and in site-packages.
    found = {(point.name, point.value): point for point in entry_points(group=GROUP)}
    return [point for (name, _), point in sorted(found.items()) if name not in BUILT_IN]


def owner(point: EntryPoint) -> str:
    """Return the name of the distribution that announces an entry point."""
    return point.dist.name if point.dist else point.value


def imported(name: str, reference: str, origin: str | None) -> SinkPlugin:
    """Import `module:attribute` on behalf of the sink `name`; `origin` is the distribution it came with, if any."""
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"--sink {name!r} is not of the form module:attribute")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(missing(name, module_name, origin, error)) from error
    except Exception as error:  # the module is somebody else's: whatever it raises while it is imported is their bug
        raise ConfigurationError(
            f"--sink {name!r} cannot be imported from {module_name}: {type(error).__name__}: {error}"
        ) from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ConfigurationError(f"--sink {name!r}: {module_name} has no {attribute!r}") from error
    if not callable(found):
        raise ConfigurationError(f"--sink {name!r}: {reference} cannot be called; name a class or a function")
    plugin: SinkPlugin = found
    return plugin


def missing(name: str, module_name: str, origin: str | None, error: ModuleNotFoundError) -> str:
    """Say what to install, or where to look, for a module that was not found."""
    absent = error.name or "?"
    if origin is None and (module_name + ".").startswith(absent + "."):
        return f"--sink {name!r}: there is no module {absent!r} on the Python path or in the working directory"
    if origin == DISTRIBUTION:
        extra = EXTRAS.get(absent.partition(".")[0])
        what = f"{DISTRIBUTION}[{extra}]" if extra else absent
    else:
        what = absent
    return f"--sink {name!r} needs the Python module {absent!r}, which is not installed: pip install '{what}'"
