"""List every setting as data: the command line, `--help` and the tables of `docs/reference.md` come from here."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from batcher.options import Flag, show_duration, show_size
from batcher.plugins import registry_of
from batcher.settings.compose import compose
from batcher.settings.model import Settings

ENV_PREFIX: Final = "BATCHER_"

Kind = Literal["value", "switch", "list", "pairs"]
"""How a setting takes its value: one, yes or no, several, or names with values."""


@dataclass(frozen=True, slots=True)
class Row:
    """Describe one setting. `section` is empty for those without one."""

    section: str
    name: str
    kind: Kind
    type: str
    default: str
    help: str
    short: str | None
    choices: tuple[str, ...]
    secret: bool
    names: str = ""
    """The kind of plug-in that the setting names."""
    owner: str = ""
    """The key of the setting that names the plug-in of the section; empty for a setting of the program itself."""

    @property
    def path(self) -> tuple[str, ...]:
        """Return the keys that lead to the setting in a nested mapping."""
        return (self.section, self.name) if self.section else (self.name,)

    @property
    def flag(self) -> str:
        """Return the long flag."""
        return flag_of(self.path)

    @property
    def env(self) -> str:
        """Return the environment variable."""
        return ENV_PREFIX + "_".join(self.path).upper()

    @property
    def key(self) -> str:
        """Return the TOML key."""
        return ".".join(self.path)


def flag_of(path: Iterable[str]) -> str:
    """Return the long flag of the setting that these keys lead to."""
    return "--" + ".".join(path).replace("_", "-")


def reference(kind: type[Settings] | None = None) -> tuple[Row, ...]:
    """Return a row for each setting: those without a section first, then section by section.

    `kind` is a class that `compose` made. Without it these are the settings with the built-in plug-ins.
    """
    # One key in the cache for the same settings, whether they were named or not.
    return _rows(kind or compose(()))


def section_help(section: str, kind: type[Settings] | None = None) -> str:
    """Return what a section is for."""
    return (kind or compose(())).model_fields[section].description or ""


@cache
def _rows(kind: type[Settings]) -> tuple[Row, ...]:
    fields = kind.model_fields
    rows = [_row("", name, field, "") for name, field in fields.items() if not _is_section(field)]
    for section, field in fields.items():
        if _is_section(field):
            model: Any = field.annotation
            owner = kind.owners.get(section, "")
            rows += [_row(section, name, one, owner) for name, one in model.model_fields.items()]
    return tuple(rows)


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _row(section: str, name: str, field: FieldInfo, owner: str) -> Row:
    flag = next((one for one in field.metadata if isinstance(one, Flag)), Flag())
    annotation = _without_none(field.annotation)
    choices = tuple(str(choice) for choice in get_args(annotation)) if get_origin(annotation) is Literal else ()
    kind: Kind = "value"
    if annotation is bool:
        kind = "switch"
    elif get_origin(annotation) is tuple:
        kind = "list"
    elif get_origin(annotation) is dict:
        kind = "pairs"
    return Row(
        section=section,
        name=field.alias or name,
        kind=kind,
        type="yes|no" if kind == "switch" else _names(flag) or flag.metavar or "|".join(choices) or "VALUE",
        default=_shown(field.get_default(call_default_factory=True)),
        help=(field.description or "").replace("\n", " "),
        short=flag.short,
        choices=choices,
        secret=annotation is SecretStr,
        names=flag.plugin or "",
        owner=owner,
    )


def _names(flag: Flag) -> str:
    """Return what may be given to a setting that names a plug-in: plug-ins with options, and others by name."""
    return "|".join([*registry_of(flag.plugin).with_options(), "NAME"]) if flag.plugin else ""


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(one for one in get_args(annotation) if one is not type(None))
    return annotation


def _shown(value: object) -> str:
    if isinstance(value, timedelta):
        return show_duration(value)
    if isinstance(value, ByteSize):
        return show_size(value)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple | dict):
        return ",".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value in (None, PydanticUndefined) else str(value)
