"""Refuse a source whose log cannot be read again, for a verb that has to do that."""

from __future__ import annotations

from collections.abc import Sequence

from batcher.plugins import registry_of
from batcher.settings import Settings, UsageError, section_of


def require_readable(settings: Settings, verb: str) -> None:
    """Raise UsageError where the source has no `reader`; one that is not there is reported when it is made."""
    if section_of(settings, "source")[1] is None:
        _refuse(settings, verb)
    if getattr(registry_of("source").find(settings.source).make, "reader", None) is None:
        _refuse(settings, verb)


def lacking_for_reading(settings: Settings) -> Sequence[str]:
    """Return what has to be given before the log can be read; a group is not needed for that."""
    name, section = section_of(settings, "source")
    faults = () if section is None else section.lacking()
    return [f"--{name}.{fault.field}: {fault.message}" for fault in faults if fault.field != "group"]


def _refuse(settings: Settings, verb: str) -> None:
    raise UsageError([f"{verb}: reads a log again, and --source {settings.source} has none"])
