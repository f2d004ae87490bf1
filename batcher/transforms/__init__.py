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
        "debezium": "batcher.transforms.debezium:plugin",
        "python": "batcher.transforms.plugin:python",
        "sql": "batcher.transforms.plugin:sql",
    },
    methods=("input", "inferred", "plan"),
)
"""What `--transform.kind` may name."""
