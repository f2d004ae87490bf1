"""The optional native extension: whether it is there, whether it may be used, and what it does in this process.

It does the jobs that are done for each record without Python objects. Whatever it does not know is done by Python, with
the same outcome. The module `batcher_native` comes with the extra `native` (`native/` in the source).
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import Final, Literal

from batcher.errors import ExtensionMissing

Choice = Literal["auto", "decode", "off", "require"]
"""`auto` uses the extension where it is there, `decode` for decoding only; `require` refuses to start without it."""

MODULE: Final = "batcher_native"
VERSION: Final = "0.2.0"
"""The version whose interface is known here; another one is not used."""

JOBS: Final = ("decode", "fetch")
"""What the extension can do."""

_jobs: set[str] = set()
_failures: set[str] = set()


def extension(choice: Choice) -> ModuleType | None:
    """Return the extension, or None where it is not there or not wanted.

    Raise ExtensionMissing with `require` where there is none that can be used.
    """
    if choice == "off":
        return None
    module, reason = _loaded()
    if module is None and reason != _MISSING:
        _failures.add(reason)
    if module is None and choice == "require":
        raise ExtensionMissing(
            f"--native require: {reason}; pip install ./native in a checkout, or --native auto for the same in Python"
        )
    return module


def version() -> str:
    """Return the version of the extension that can be used, or nothing."""
    module, _ = _loaded()
    return "" if module is None else VERSION


def failure() -> str:
    """Return why an extension that was asked for is there and cannot be used; nothing where that is not so."""
    return ", ".join(_failures)


def take(job: str) -> None:
    """Note that the extension does a job in this process."""
    _jobs.add(job)


def jobs() -> tuple[str, ...]:
    """Return the jobs that the extension does in this process, for status and log."""
    return tuple(sorted(_jobs))


_MISSING: Final = f"the module {MODULE} is not installed"


@cache
def _loaded() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module(MODULE)
    except ModuleNotFoundError:
        return None, _MISSING
    except (ImportError, OSError) as error:
        # The loader's text may have several lines.
        return None, f"the module {MODULE} does not load ({' '.join(str(error).split())})"
    found = getattr(module, "__version__", "of no version")
    if found != VERSION:
        return None, f"the module {MODULE} is {found}, not {VERSION}"
    return module, ""
