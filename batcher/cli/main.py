"""Find the verb and hand it the rest of the command line. It loads nothing that the verb does not need."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from batcher.cli.support.outcome import explained
from batcher.cli.verbs import VERBS

DEFAULT_VERB: Final = "run"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0 done · 1 bug · 2 bad command line · 69 unreachable at start · 75 stopped, nothing lost, start again ·
    78 configuration or poison limit · 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] in (["--version"], ["-V"]):
            return _version()
        if words[:1] == ["help"]:
            words = [*words[1:2], "--help"]
        verb, rest = _verb(words)
        if verb is None:
            # The log is not set up yet.
            print(f"batcher: {words[0]}: no such verb{_meant(words[0])}; see batcher --help", file=sys.stderr)
            return 2
        return int(importlib.import_module(f"batcher.cli.verbs.{verb}").main(rest))
    except SystemExit as end:  # argparse's --help
        return end.code if isinstance(end.code, int) else 0
    except BaseException as error:  # the one place where everything ends as an exit code
        return explained(error)


def _verb(words: Sequence[str]) -> tuple[str | None, list[str]]:
    if not words or words[0].startswith("-"):
        return DEFAULT_VERB, list(words)
    return (words[0], list(words[1:])) if words[0] in VERBS else (None, [])


def _meant(word: str) -> str:
    close = get_close_matches(word, VERBS, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _native() -> str:
    from batcher import native
    from batcher.sources.kafka.native_reader import misfit

    extension = native.extension("auto")
    if extension is None:
        return "no native extension"
    lacking = misfit(extension)
    return f"native extension {native.version()} ({f'decode; no fetch: {lacking}' if lacking else 'decode, fetch'})"


def _version() -> int:
    from importlib.metadata import PackageNotFoundError, version  # takes 30 ms

    from batcher import __version__

    parts = []
    for name in ("confluent-kafka", "clickhouse-connect", "pyarrow", "chdb"):
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    from confluent_kafka import libversion  # the only library that has to be asked itself

    parts.append(_native())

    python = ".".join(str(part) for part in sys.version_info[:3])
    print(f"batcher {__version__} (librdkafka {libversion()[0]}, {', '.join(parts)}, Python {python})")  # data
    return 0
