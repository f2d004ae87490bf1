"""`batcher plugins`: the sources, formats, sinks and dead-letter queues that can be named, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Sequence

from batcher.settings import Parser


def main(argv: Sequence[str]) -> int:
    """Print the plug-ins and return 0."""
    parser = Parser(
        "batcher plugins",
        description="List what --source, --decode.format, --transform.kind, --sink and --dlq.queue may name; a "
        "module:attribute may be named too.",
    )
    parser.add_argument("--json", action="store_true", help="as a JSON list")
    arguments = parser.parse(argv)
    from batcher.plugins import registries

    found = [(registry.kind, one) for registry in registries() for one in registry.describe()]
    if arguments.json:
        print(json.dumps([{"kind": kind, **one._asdict()} for kind, one in found]))
        return 0
    for kind, one in found:
        print(f"{kind:<18} {one.name:<20} {one.origin} {one.version}")
    return 0
