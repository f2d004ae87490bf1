"""`batcher completion`: print the script with which a shell completes verbs, flags and values."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Final

from batcher.cli.verbs import VERBS
from batcher.errors import ConfigurationError
from batcher.plugins import registry_of
from batcher.settings import Parser, UsageError, reference
from batcher.settings.flags import HAND_OVER, ParserHandedOver

USAGE: Final = "batcher completion bash|zsh|fish"

NOTES: Final = """\
bash:  mkdir -p ~/.local/share/bash-completion/completions
       batcher completion bash > ~/.local/share/bash-completion/completions/batcher
zsh:   batcher completion zsh > a file named _batcher in a directory of $fpath
fish:  batcher completion fish > ~/.config/fish/completions/batcher.fish

The script holds what is installed now, plug-ins too: print it again after installing others.\
"""

SHELLS: Final = ("bash", "zsh", "fish")

COMMANDS: Final = {
    "config": ("show", "init"),
    "dlq": ("ls", "show", "stats", "replay", "export", "purge"),
    "queue": ("create", "publish", "pull", "ack", "stats", "replay", "purge"),
}
"""The verbs that have commands of their own."""

FILES: Final = frozenset({"FILE", "PATH", "auto|FILE", "FILE|-"})
DIRECTORIES: Final = frozenset({"DIR"})


def main(argv: Sequence[str]) -> int:
    """Print the script of a shell and return 0."""
    parser = Parser("batcher completion", usage=USAGE, description="Complete verbs, flags and values.", epilog=NOTES)
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS), help="the shell that the script is for")
    shell = parser.parse(argv).shell
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "completion needs the Python module 'shtab', which is not installed: "
            "pip install 'kafka-batcher[completion]'"
        ) from error
    if shell not in shtab.SUPPORTED_SHELLS:
        raise UsageError([f"completion {shell}: this version of shtab does not know it; pip install -U shtab"])
    print(shtab.complete(_tree(), shell=shell))
    return 0


def _tree() -> argparse.ArgumentParser:
    """Return one parser with all verbs below it, `run`'s flags beside them: it is the default verb."""
    root = argparse.ArgumentParser("batcher", parents=[_bare(_parser_of("run", ()))], add_help=False)
    verbs = root.add_subparsers()
    for verb, what in VERBS.items():
        made = verbs.add_parser(verb, help=what, parents=[_bare(_parser_of(verb, ()))], add_help=False)
        if verb in COMMANDS:
            below = made.add_subparsers()
            for command in COMMANDS[verb]:
                found = _bare(_parser_of(verb, (command,)))
                below.add_parser(command, help=found.description, parents=[found], add_help=False)
    return root


def _parser_of(verb: str, command: Sequence[str]) -> Parser:
    # `config` alone has no flags but those of its help.
    if verb in COMMANDS and not command:
        return Parser(f"batcher {verb}", description=VERBS[verb])
    try:
        import_module(f"batcher.cli.verbs.{verb}").main([*command, HAND_OVER])
    except ParserHandedOver as answer:
        return answer.parser
    raise AssertionError(f"the verb {verb} has no parser of ours")


def _bare(parser: Parser) -> Parser:
    """Return a parser as shtab takes it: with the values that its flags may have, and without what help hides."""
    choices = dict(_plugged())
    for action in list(parser._actions):  # noqa: SLF001 - shtab reads the same
        if HAND_OVER in action.option_strings or action.help == argparse.SUPPRESS:
            parser._remove_action(action)  # noqa: SLF001 - argparse has no other way
            for group in parser._action_groups:  # noqa: SLF001 - a group lists its actions as well
                group._group_actions = [one for one in group._group_actions if one is not action]  # noqa: SLF001
            continue
        _complete(action, choices)
    return parser


def _complete(action: Any, choices: dict[str, Sequence[str]]) -> None:
    metavar = str(action.metavar or "").replace("%%", "%")
    if found := choices.get(action.dest):
        action.choices = found
    elif metavar in FILES:
        action.complete = _files("FILE")
    elif metavar in DIRECTORIES:
        action.complete = _files("DIRECTORY")
    # Otherwise the metavar would be offered as if it were one value.
    action.metavar = None if action.choices else action.metavar


def _files(kind: str) -> dict[str, str]:
    import shtab

    found: dict[str, str] = getattr(shtab, kind)
    return found


def _plugged() -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the values of each setting that has a list of them: choices, and the names of the plug-ins there are."""
    for row in reference():
        if row.names:
            yield row.key, registry_of(row.names).names()
        elif row.choices:
            yield row.key, row.choices
