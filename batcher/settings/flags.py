"""Read settings from a command line.

The parser is made from `reference()`. The command line of pydantic-settings is not used. It splits every list and
mapping at commas, so that a password with a comma in `-X` cannot be given, and it cannot suggest a flag.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any, Final, NoReturn

from batcher.options.units import parse_pair
from batcher.settings.errors import UsageError
from batcher.settings.model import Settings
from batcher.settings.reference import Row, reference, section_help

_WIDTH: Final = 120


HAND_OVER: Final = "--hand-over-parser"
"""A flag that is in no help: completion asks a verb for the flags it has."""


class ParserHandedOver(Exception):  # an answer, and no error
    """Carry the parser of a verb to the code that asked for it."""

    def __init__(self, parser: Parser) -> None:
        super().__init__()
        self.parser = parser


class _HandOver(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        assert isinstance(parser, Parser)
        raise ParserHandedOver(parser)


class Parser(argparse.ArgumentParser):
    """Parse flags; faults become UsageError instead of an exit, unknown flags get a suggestion."""

    def __init__(
        self, prog: str, *, usage: str | None = None, description: str = "", epilog: str = "", add_help: bool = True
    ) -> None:
        super().__init__(
            prog=prog,
            add_help=add_help,
            usage=usage,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        self._groups: dict[str, Any] = {"": self}
        self._keys: set[str] = set()
        if add_help:
            self.add_argument(HAND_OVER, action=_HandOver, nargs=0, help=argparse.SUPPRESS)

    def error(self, message: str) -> NoReturn:
        """Raise the fault as UsageError."""
        name, separator, rest = message.removeprefix("argument ").partition(": ")
        flag = name.rpartition("/")[2]
        raise UsageError([f"{flag}: {rest}" if separator and flag.startswith("-") else message])

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of a command line; raise UsageError, with a suggestion where a flag is misspelt."""
        values, unknown = self.parse_known_args(list(argv))
        if not unknown:
            return values
        flag = unknown[0].partition("=")[0]
        if not flag.startswith("-"):
            # The word itself is not named: it may be a secret that was separated from its flag.
            flags = [word.partition("=")[0] for word in argv[: argv.index(unknown[0])] if word.startswith("-")]
            place = f" after {flags[-1]}" if flags else ""
            raise UsageError([f"unexpected argument{place}; see {self.prog} --help"])
        known = [option for option in self._option_string_actions if option.startswith("--")]
        raise UsageError([f"{flag}: no such flag{suggestion(flag, known)}; see {self.prog} --help"])

    def glance(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the configuration file and plug-ins that a command line names, before the flags of these are known."""
        first = Parser(self.prog, add_help=False)
        first.add_argument("-c", "--config")
        first.add_argument("-q", action="store_true")
        first.add_argument("-v", action="store_true")
        for row in reference():
            if row.names and row.key in self._keys:
                first.add_argument(row.flag, dest=row.key)
        try:
            return first.parse_known_args(list(argv))[0]
        except UsageError:  # a flag without its value: the full parser reports it
            return argparse.Namespace()

    def add_settings(self, only: Collection[str] | None = None) -> None:
        """Add the flags of the settings; with `only`, those of the named sections or keys (`kafka.brokers`).

        Where the key that names a plug-in is one of them (`sink`), the sections of such plug-ins are added as well.
        """
        for row in reference():
            if only is None or row.section in only or row.key in only or row.owner in only:
                self._add(row)

    def add_plugins(self, kind: type[Settings]) -> None:
        """Add the flags of the plug-ins that are not built in, where the flags that name such plug-ins are there."""
        for row in reference(kind):
            if row.owner in self._keys and row.key not in self._keys:
                self._add(row, kind)

    def given(self, arguments: argparse.Namespace, kind: type[Settings]) -> dict[str, Any]:
        """Return the settings of a parsed command line as nested mappings; raise UsageError for a bad pair."""
        values: dict[str, Any] = {}
        for row in reference(kind):
            # A verb may have a flag of its own that is stored under the same name.
            value = getattr(arguments, row.key, None) if row.key in self._keys else None
            if value is None:
                continue
            if row.kind == "pairs":
                value = dict(_pair(row, one) for one in value)
            target = values.setdefault(row.section, {}) if row.section else values
            target[row.name] = value
        return values

    def _add(self, row: Row, kind: type[Settings] | None = None) -> None:
        if row.section not in self._groups:
            self._groups[row.section] = self.add_argument_group(row.section, section_help(row.section, kind))
        names = [name for name in (row.flag, row.short) if name and name not in self._option_string_actions]
        self._groups[row.section].add_argument(*names, dest=row.key, help=_help(row), **_behaviour(row))
        self._keys.add(row.key)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=_WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # `-b, --kafka.brokers HOST:PORT` instead of the metavar after each of the two.
        if not action.option_strings:
            return super()._format_action_invocation(action)
        shown = [name for name in action.option_strings if not name.startswith("--no-")]
        names = ", ".join(sorted(shown, key=len))
        return names if action.nargs == 0 else f"{names} {self._format_args(action, action.dest.upper())}"


def suggestion(word: str, known: Collection[str]) -> str:
    """Return `; did you mean …?`, or nothing where no known word is close."""
    # The words after the last dot count too: --max-rows is meant to be --batch.max-rows.
    tails = {name.rpartition(".")[2].lstrip("-"): name for name in known}
    exact = tails.get(word.lstrip("-"))
    close = [exact] if exact else get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""


def _pair(row: Row, text: str) -> tuple[str, str]:
    try:
        return parse_pair(text)
    except ValueError as error:
        raise UsageError([f"{row.short or row.flag}: {error}"]) from None


def _behaviour(row: Row) -> dict[str, Any]:
    if row.kind == "switch":
        return {"action": argparse.BooleanOptionalAction, "default": None}
    metavar = row.type.replace("%", "%%")
    return {"metavar": metavar, "action": "append"} if row.kind in ("list", "pairs") else {"metavar": metavar}


def _help(row: Row) -> str:
    notes = [row.default] if row.default and row.kind != "switch" else []
    return f"{row.help} [{'; '.join([*notes, '$' + row.env])}]".replace("%", "%%")
