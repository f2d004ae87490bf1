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
    built_in={"json": "batcher.formats.json:plugin"},
    methods=("decoder", "infer"),
)
"""What `--decode.format` may name."""
