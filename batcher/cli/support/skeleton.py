"""A settings file to begin with, made from the models of the settings: what was given, and all else as comments."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from batcher.options import WorkerCount
from batcher.plugins import REGISTRIES, registry_of
from batcher.settings import Loaded, Row, Settings, masked, reference, section_of, show_duration
from batcher.settings.reference import section_help
from batcher.settings.rules import missing

WIDTH: Final = 100

FORMAT: Final = "decode.format"

HIDDEN: Final = "***"
"""What stands for a secret in settings that are shown."""


def plain(value: Any) -> Any:
    """Return a masked setting as TOML has it."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, WorkerCount):
        return int(value) if value.least == value else str(value)
    return show_duration(value) if isinstance(value, timedelta) else value


def toml(value: Any) -> str:
    """Return a plain value as TOML writes it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(name)} = {toml(item)}' for name, item in value.items())}}}"
    # JSON and TOML write everything else alike: text, numbers, booleans and lists of text.
    return json.dumps(value, ensure_ascii=False)


def lines(loaded: Loaded) -> Iterator[str]:
    """Yield the file, a line each, for the source and the sink that the settings name.

    What was given has its value, but secrets, which no file should have. What `run` needs and was not given is marked.
    """
    settings = loaded.settings
    shown: Mapping[str, Any] = plain(masked(settings))
    needed = {problem.paths[0]: problem.message for problem in missing(settings)}
    given = set(loaded.origins)
    yield f"# From {settings.source} to {settings.sink}. Run it with: batcher -c FILE"
    yield from _comment(
        "A line such as #key = value is a default. NEEDED marks what has to be given. Secrets belong into variables, "
        "or into the files that variables name. To see what holds and where it comes from: batcher config show -c FILE"
    )
    section = ""
    for row in _rows(settings):
        if row.section != section:
            section = row.section
            yield ""
            yield ""
            yield from _comment(section_help(section, type(settings)))
            yield f"[{section}]"
        yield ""
        value = (shown[row.section] if row.section else shown)[row.name]
        yield from _setting(row, value, given=row.path in given, needed=needed.get(row.path, ""))


def _rows(settings: Settings) -> Iterator[Row]:
    """Yield the settings of the parts that are chosen, and those that no part has for itself."""
    chosen = {section_of(settings, kind)[0] for kind in REGISTRIES}
    shared = {section for section, parts in _owned().items() if parts > 1}
    for row in reference(type(settings)):
        if not row.owner or row.section in chosen or (row.section in shared and row.owner == FORMAT):
            yield row


def _owned() -> Counter[str]:
    """Return for each section how many of the formats that come with batcher have it: several read a registry."""
    formats = registry_of("format")
    return Counter(formats.find(name).section for name in formats.with_options())


def _setting(row: Row, value: Any, *, given: bool, needed: str) -> Iterator[str]:
    yield from _comment(row.help)
    if row.choices:
        yield from _comment(f"One of: {', '.join(row.choices)}.")
    elif row.type not in ("VALUE", "yes|no", "N"):
        yield from _comment(f"Written as {row.type}.")
    hidden = HIDDEN in toml(value)
    if row.secret or hidden:
        yield from _comment(f"A secret: ${row.env}, or the file that ${row.env}_FILE names.")
    if needed:
        yield from _comment(f"NEEDED: {needed}")
    if given and not hidden:
        yield f"{row.name} = {toml(value)}"
        return
    empty = hidden or value in (None, [], {})
    yield f"#{row.name} = {_example(row) if empty else toml(value)}"


def _example(row: Row) -> str:
    return {"list": "[]", "pairs": "{}"}.get(row.kind, '""')


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))
