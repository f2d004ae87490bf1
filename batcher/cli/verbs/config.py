"""`batcher config show`: the settings that would be used, secrets masked, and where each comes from.

The output is a configuration file: what it says can be given with -c once the secrets are put back. `batcher config
init` writes one to begin with, for the source and the sink that are named, with every setting and what it is for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Final

from batcher.cli.support.loudness import add_loudness
from batcher.settings import (
    Loaded,
    Parser,
    Row,
    UsageError,
    add_config_flag,
    load,
    masked,
    reference,
)

USAGE: Final = "batcher config show [--json] [flags of run]"

USAGE_INIT: Final = "batcher config init --source NAME --sink NAME [flags of run] > batcher.toml"


def main(argv: Sequence[str]) -> int:
    """Print the settings; return 0, or raise UsageError for what no verb takes. What `run` needs may be missing."""
    if argv and argv[0] == "init":
        return _init(argv[1:])
    if not argv or argv[0] not in ("show", "-h", "--help"):
        raise UsageError([f"config: what? {USAGE}; or {USAGE_INIT}"])
    parser = Parser(
        "batcher config show",
        usage=USAGE,
        description="Show the settings, secrets masked.",
        epilog=f"Also: {USAGE_INIT}",
    )
    add_config_flag(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object, without where they come from")
    add_loudness(parser)
    parser.add_settings()
    loaded = load(parser, list(argv[1:] if argv[0] == "show" else argv))
    for warning in loaded.warnings:
        print(f"batcher: {warning}", file=sys.stderr)
    from batcher.cli.support.skeleton import plain, toml

    shown = plain(masked(loaded.settings))
    if loaded.arguments.json:
        print(json.dumps(shown))
        return 0
    for row in reference(type(loaded.settings)):
        value = (shown[row.section] if row.section else shown)[row.name]
        line = f"# {row.key} is not set" if value is None else f"{row.key} = {toml(value)}"
        print(line if value is None else f"{line}  # {_origin(row, loaded)}")
    return 0


def _init(argv: Sequence[str]) -> int:
    """Print a file to begin with; return 0, or raise UsageError for what no verb takes."""
    parser = Parser("batcher config init", usage=USAGE_INIT, description="Write a settings file to begin with.")
    add_config_flag(parser)
    add_loudness(parser)
    parser.add_settings()
    loaded = load(parser, list(argv))
    if not loaded.settings.sink:
        raise UsageError([f"--sink: into which target? {USAGE_INIT}"])
    from batcher.cli.support.skeleton import lines

    for line in lines(loaded):
        print(line)
    return 0


def _origin(row: Row, loaded: Loaded) -> str:
    inner = {origin for path, origin in loaded.origins.items() if path[: len(row.path)] == row.path}
    return ", ".join(sorted(inner)) or "default"
