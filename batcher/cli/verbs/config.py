"""`batcher config show`: the settings that would be used, secrets masked, and where each comes from.

The output is a configuration file: what it says can be given with -c once the secrets are put back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from batcher.cli.support.loudness import add_loudness
from batcher.options import WorkerCount
from batcher.settings import (
    Loaded,
    Parser,
    Row,
    UsageError,
    add_config_flag,
    load,
    masked,
    reference,
    show_duration,
)

USAGE: Final = "batcher config show [--json] [flags of run]"


def main(argv: Sequence[str]) -> int:
    """Print the settings; return 0, or raise UsageError for what no verb takes. What `run` needs may be missing."""
    if not argv or argv[0] not in ("show", "-h", "--help"):
        raise UsageError([f"config: what? {USAGE}"])
    parser = Parser("batcher config show", usage=USAGE, description="Show the settings, secrets masked.")
    add_config_flag(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object, without where they come from")
    add_loudness(parser)
    parser.add_settings()
    loaded = load(parser, list(argv[1:] if argv[0] == "show" else argv))
    for warning in loaded.warnings:
        print(f"batcher: {warning}", file=sys.stderr)
    shown = _plain(masked(loaded.settings))
    if loaded.arguments.json:
        print(json.dumps(shown))
        return 0
    for row in reference(type(loaded.settings)):
        value = (shown[row.section] if row.section else shown)[row.name]
        line = f"# {row.key} is not set" if value is None else f"{row.key} = {_toml(value)}"
        print(line if value is None else f"{line}  # {_origin(row, loaded)}")
    return 0


def _origin(row: Row, loaded: Loaded) -> str:
    inner = {origin for path, origin in loaded.origins.items() if path[: len(row.path)] == row.path}
    return ", ".join(sorted(inner)) or "default"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, WorkerCount):
        return int(value) if value.least == value else str(value)
    return show_duration(value) if isinstance(value, timedelta) else value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(name)} = {_toml(item)}' for name, item in value.items())}}}"
    # JSON and TOML write everything else alike: text, numbers, booleans and lists of text.
    return json.dumps(value)
