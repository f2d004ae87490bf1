"""Gather settings: flags over environment over `*_FILE` secrets over the TOML file over defaults."""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from batcher.errors import ConfigurationError
from batcher.options.units import parse_mapping
from batcher.plugins import registries
from batcher.settings.compose import compose
from batcher.settings.errors import UsageError
from batcher.settings.flags import Parser
from batcher.settings.model import Settings
from batcher.settings.reference import ENV_PREFIX, Row, reference
from batcher.settings.rules import Problem, conflicts, missing, unread, unshared

CONFIG_ENV: Final = "BATCHER_CONFIG"

# Kubernetes gives every pod variables for each service: one named `batcher` or `batcher-kafka` must not be
# taken for settings. BATCHER_TEST_… is read by the tests.
_FOREIGN: Final = re.compile(
    r"BATCHER_(?:TEST_.*|CONFIG|(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP)(?:_\w+)?)?))"
)

# The line end that an editor adds to a secret; a blank may belong to the secret.
_LINE_END: Final = re.compile(r"\r?\n\Z")

# What each layer gives, from the weakest to the strongest.
_Layers = dict[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Hold the settings, the parsed command line, where each value came from, and what to warn about.

    `origins` has the flag, variable or file for each path that is not a default.
    """

    settings: Settings
    arguments: argparse.Namespace
    origins: Mapping[tuple[str, ...], str]
    warnings: tuple[str, ...]


class _Environment(EnvSettingsSource):
    """Read the given variables instead of those of the process, lists and mappings as people write them."""

    def __init__(self, kind: type[Settings], variables: Mapping[str, str]) -> None:
        self._variables = variables
        super().__init__(kind)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._variables.items()}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Return pairs as a mapping, so that they merge with those of the file; validation refuses what is none."""
        del field_name
        if field.annotation != dict[str, str]:
            return value
        try:
            return parse_mapping(value)
        except ValueError:
            return value


def add_config_flag(parser: Parser) -> None:
    """Add `-c`."""
    parser.add_argument("-c", "--config", metavar="FILE", help=f"TOML file with settings [${CONFIG_ENV}]")


def load(parser: Parser, argv: list[str], environ: Mapping[str, str] = os.environ, *, runnable: bool = False) -> Loaded:
    """Parse a command line and gather the settings; raise UsageError with every fault.

    With `runnable`, everything that `run` needs has to be there.
    """
    kind, unusable = _kind(parser, argv, environ)
    parser.add_plugins(kind)
    try:
        return _loaded(kind, parser, argv, environ, runnable=runnable)
    except UsageError as error:
        # A plug-in that is not found is a likelier fault than its unknown options.
        raise UsageError(unusable or error.lines) from None


def _kind(parser: Parser, argv: list[str], environ: Mapping[str, str]) -> tuple[type[Settings], list[str]]:
    """Return the settings with the sections of the plug-ins that are named, and why one of them cannot be used.

    The code that makes the part reports the latter, unless its flags are not known for that reason.
    """
    first = parser.glance(argv)
    config = getattr(first, "config", None) or environ.get(CONFIG_ENV)
    try:
        found = tomllib.loads(Path(config).read_text(encoding="utf-8")) if config else {}
    except (OSError, ValueError):  # reported when the file is read for its settings
        found = {}
    named: tuple[tuple[str, str], ...] = ()
    unusable = []
    for registry in registries():
        section, _, key = registry.setting.rpartition(".")
        of_file = found.get(section, {}) if section else found
        name: object = (
            getattr(first, registry.setting, None)
            or environ.get(ENV_PREFIX + registry.setting.replace(".", "_").upper())
            or (of_file.get(key) if isinstance(of_file, dict) else None)
        )
        if not isinstance(name, str) or name in registry.built_in:
            continue
        try:
            compose((*named, (registry.setting, name)))
        except ConfigurationError as error:
            unusable.append(str(error))
        else:
            named = (*named, (registry.setting, name))
    return compose(named), unusable


def _loaded(
    kind: type[Settings], parser: Parser, argv: list[str], environ: Mapping[str, str], *, runnable: bool
) -> Loaded:
    arguments = parser.parse(argv)
    config = getattr(arguments, "config", None) or environ.get(CONFIG_ENV)
    known = {row.env for row in reference(kind)}
    ours = {name: value for name, value in environ.items() if name.startswith(ENV_PREFIX)}
    ours = {name: value for name, value in ours.items() if name in known or not _FOREIGN.fullmatch(name)}
    layers: _Layers = {
        "file": _file(kind, config) if config else {},
        "secret file": _environment(kind, _secret_files(kind, ours)),
        "variable": _environment(kind, ours),
        "flag": parser.given(arguments, kind),
    }
    origins = {path: _origin(kind, name, path, config) for name, found in layers.items() for path in _paths(found)}
    settings = _made(kind, layers, environ, origins)
    from_files = {
        row.key
        for path in _paths(layers["secret file"])
        if origins[path].endswith("_FILE") and (row := _row(kind, path)) is not None
    }
    if from_files:
        settings.keep_secret_files(frozenset(from_files), partial(_made_again, kind, layers, environ, origins, ours))
    problems = [*(missing(settings) if runnable else ()), *conflicts(settings)]
    problems += unshared(settings) if runnable else ()
    # Only as a flag: variables and a file may serve several pipelines.
    problems += unread(settings) if "options" in layers["flag"] else ()
    if problems:
        raise _refused(kind, problems, origins)
    return Loaded(settings, arguments, origins, tuple(_unknown(kind, ours)))


def _made(
    kind: type[Settings], layers: _Layers, environ: Mapping[str, str], origins: dict[tuple[str, ...], str]
) -> Settings:
    values: dict[str, Any] = {}
    for found in layers.values():
        _merge(values, found)
    _add_implied(values, origins)
    try:
        return kind(**_with_borrowed(kind, values, environ, origins))
    except ValidationError as error:
        problems = [_problem(kind, one) for one in error.errors(include_url=False)]
        raise _refused(kind, problems, origins) from None


def _made_again(
    kind: type[Settings],
    layers: _Layers,
    environ: Mapping[str, str],
    origins: Mapping[tuple[str, ...], str],
    ours: Mapping[str, str],
) -> Settings:
    """Return the settings with what the secret files hold now; everything else is as it was."""
    return _made(kind, layers | {"secret file": _environment(kind, _secret_files(kind, ours))}, environ, dict(origins))


def _file(kind: type[Settings], name: str) -> Mapping[str, Any]:
    path = Path(name)
    try:
        if not path.is_file():  # the library ignores a file that is not there
            reason = "is a directory; name the file in it" if path.is_dir() else "no such file"
            raise UsageError([f"--config: {name}: {reason}"])
        return TomlConfigSettingsSource(kind, path)()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError([f"{name}: is not TOML: {error}"]) from None
    except OSError as error:
        raise UsageError([f"{name}: {error.strerror}"]) from None


def _environment(kind: type[Settings], variables: Mapping[str, str]) -> Mapping[str, Any]:
    return _Environment(kind, {name: value for name, value in variables.items() if _setting(kind, name)})()


def _setting(kind: type[Settings], name: str) -> bool:
    sections = tuple(f"{ENV_PREFIX}{row.section.upper()}_" for row in reference(kind) if row.section)
    return name in {row.env for row in reference(kind)} or (name.startswith(sections) and not name.endswith("_FILE"))


def _secret_files(kind: type[Settings], variables: Mapping[str, str]) -> Mapping[str, str]:
    found = {}
    for row in reference(kind):
        name = f"{row.env}_FILE"
        if not (row.secret or row.kind == "pairs") or name not in variables:
            continue
        if row.env in variables:
            raise UsageError([f"{name}: {row.env} is given too; which one?"])
        try:
            # As bytes: reading text would make "\n" of every "\r".
            found[row.env] = _LINE_END.sub("", Path(variables[name]).read_bytes().decode())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise UsageError([f"{name}: {variables[name]}: {reason}"]) from None
    return found


def _add_implied(values: dict[str, Any], origins: dict[tuple[str, ...], str]) -> None:
    """Add what the parts that are named imply for other settings, where nothing gives these a value."""
    for registry in registries():
        section, _, key = registry.setting.rpartition(".")
        named: Any = values.get(section, {}) if section else values
        name = named.get(key) if isinstance(named, Mapping) else None
        try:
            model = registry.find(name).model if isinstance(name, str) else None
        except ConfigurationError:  # the code that makes the part reports it
            continue
        for path, value in (model.implied if model is not None else {}).items():
            where, _, field = path.partition(".")
            into = values.setdefault(where, {})
            if isinstance(into, dict) and field not in into:
                into[field] = value
                origins[where, field] = f"{registry.flag} {name}"


def _with_borrowed(
    kind: type[Settings], values: dict[str, Any], environ: Mapping[str, str], origins: dict[tuple[str, ...], str]
) -> dict[str, Any]:
    """Add what plug-ins read from the variables of other programs, where nothing else gives it.

    The sections of plug-ins are there even if empty, so that a field that has to be given is named.
    """
    made = dict(values)
    for name in kind.owners:
        given = values.get(name, {})
        if not isinstance(given, dict):
            continue
        model: Any = kind.model_fields[name].annotation
        section = dict(given)
        for field, variable in model.borrowed(given).items():
            if value := environ.get(variable):
                section[field] = value
                origins[name, field] = variable
        made[name] = section
    return made


def _merge(into: dict[str, Any], found: Mapping[str, Any]) -> None:
    for name, value in found.items():
        if isinstance(value, Mapping):
            below = into.get(name)
            into[name] = dict(below) if isinstance(below, Mapping) else {}
            _merge(into[name], value)
        else:
            into[name] = value


def _paths(found: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in found.items():
        yield (*above, name)
        if isinstance(value, Mapping):
            yield from _paths(value, (*above, name))


def _row(kind: type[Settings], path: tuple[str, ...]) -> Row | None:
    return next((row for row in reference(kind) if row.path == path[: len(row.path)]), None)


def _origin(kind: type[Settings], layer: str, path: tuple[str, ...], config: str | None) -> str:
    row = _row(kind, path)
    if layer == "file":
        return str(config)
    if layer == "flag":
        return row.flag if row else ""
    name = row.env if row else ENV_PREFIX + "_".join(path).upper()
    return f"{name}_FILE" if layer == "secret file" else name


def _problem(kind: type[Settings], error: Any) -> Problem:
    path = tuple(str(part) for part in error["loc"])
    row = _row(kind, path)
    if error["type"] == "extra_forbidden":
        siblings = [one.name for one in reference(kind) if one.path[:-1] == path[:-1]]
        close = get_close_matches(path[-1], siblings, n=1)
        return Problem((path,), "no such setting" + (f", did you mean {close[0]}?" if close else ""))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "byte_size":
        message = "needs a size such as 64MiB, 1.5GiB or a number of bytes"
    if error["type"] == "missing":
        message = "has to be given"
    if error["type"] == "model_type":
        message = "is a section, not a value"
    if row is not None and row.choices:
        message = f"is one of {', '.join(row.choices)}"
    return Problem((path,), message[:1].lower() + message[1:])


def _refused(kind: type[Settings], problems: list[Problem], origins: Mapping[tuple[str, ...], str]) -> UsageError:
    lines = []
    for problem in problems:
        row = _row(kind, problem.paths[0])
        origin = origins.get(problem.paths[0]) or (row.flag if row else ".".join(problem.paths[0]))
        whole = origin == ".".join(problem.paths[0])
        place = origin if whole or origin.startswith(("-", ENV_PREFIX)) else f"{origin}: {'.'.join(problem.paths[0])}"
        lines.append(f"{place}: {problem.message}")
    return UsageError(lines)


def _unknown(kind: type[Settings], variables: Mapping[str, str]) -> Iterator[str]:
    known = {row.env for row in reference(kind)}
    for name in sorted(variables):
        if not _setting(kind, name) and name.removesuffix("_FILE") not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.8)
            yield f"{name}: no such setting" + (f", did you mean {close[0]}?" if close else ", ignored")
