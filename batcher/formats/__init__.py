"""Formats: raw bytes into columns. A format is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batcher.plugins import Registry

if TYPE_CHECKING:
    from batcher.protocols import Format

registry: Final[Registry[Format]] = Registry(
    "format",
    setting="decode.format",
    group="batcher.formats",
    built_in={
        "avro": "batcher.formats.avro:plugin",
        "csv": "batcher.formats.delimited:plugin",
        "json": "batcher.formats.json:plugin",
        "msgpack": "batcher.formats.msgpack:plugin",
        "protobuf": "batcher.formats.protobuf:plugin",
        "raw": "batcher.formats.raw:plugin",
    },
    methods=("decoder", "infer"),
)
"""What `--decode.format` may name."""
