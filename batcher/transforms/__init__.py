"""Transforms: columns of records into columns of a target. One is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batcher.plugins import Registry

if TYPE_CHECKING:
    from batcher.protocols import Transform

registry: Final[Registry[Transform]] = Registry(
    "transform",
    setting="transform.kind",
    group="batcher.transforms",
    built_in={
        "python": "batcher.transforms.python:plugin",
        "sql": "batcher.transforms.sql:plugin",
    },
    methods=("input", "inferred", "plan"),
)
"""What `--transform.kind` may name."""
