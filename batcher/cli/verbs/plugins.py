"""`batcher plugins`: the sinks that can be named with --sink, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Sequence

from batcher.settings import Parser


def main(argv: Sequence[str]) -> int:
    """Print the sinks and return 0."""
    parser = Parser("batcher plugins", description="List what --sink may name. It also takes module:attribute.")
    parser.add_argument("--json", action="store_true", help="as a JSON list")
    arguments = parser.parse(argv)
    import sinks

    found = sinks.describe()
    if arguments.json:
        print(json.dumps([{"name": one.name, "origin": one.origin, "version": one.version} for one in found]))
        return 0
    for one in found:
        print(f"{one.name:<20} {one.origin} {one.version}")
    return 0
