"""Find what a message has and no column gets: fields that the schema does not know, and groups.

Protobuf cannot name such a field, so its path ends in its number: `address.#17`. A finder is made once for each place
of a schema and asks nothing of those that have neither: it is called for each record where a writer is ahead of us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.unknown_fields import UnknownFieldSet

from batcher.formats.json.shape import inner_path, item_path
from batcher.formats.protobuf.steps import (
    MessageStep,
    ProtoMember,
    ProtoStep,
    ScalarStep,
    TwinEnumStep,
    TwinListStep,
    TwinMapStep,
    TwinTextStep,
)

Find = Callable[[Any, set[str]], None]
"""Add to a set the paths of what is in a message, or in a field of it."""

_WITHOUT: Final = (ScalarStep, TwinEnumStep, TwinTextStep)
"""Places that have no message, or look for themselves."""


def finder(step: ProtoStep, path: str = "") -> Find:
    """Return what finds the paths in messages of a place."""
    groups = [(name, inner_path(path, name)) for name in step.groups] if isinstance(step, MessageStep) else []
    members = _members(step, path) if isinstance(step, MessageStep) else []

    def find(message: Any, found: set[str]) -> None:
        strange = UnknownFieldSet(message)
        if len(strange):
            for one in strange:
                found.add(inner_path(path, f"#{one.field_number}"))
        for name, group in groups:
            held = getattr(message, name)
            if len(held) if hasattr(held, "__len__") else message.HasField(name):
                found.add(group)
        for member in members:
            member(message, found)

    return find


def _members(step: MessageStep, path: str) -> list[Find]:
    found = (_member(member, inner_path(path, member.name)) for member in step.members)
    return [find for find in found if find is not None]


def _member(member: ProtoMember, path: str) -> Find | None:
    name, step = member.name, member.step
    if isinstance(step, _WITHOUT):
        return None
    if isinstance(step, TwinMapStep):
        return _entries(name, step, item_path(path))
    if isinstance(step, TwinListStep):
        if isinstance(step.item, _WITHOUT):
            return None
        find_item = finder(step.item, item_path(path))

        def of_items(message: Any, found: set[str]) -> None:
            for one in getattr(message, name):
                find_item(one, found)

        return of_items
    find = finder(step, path)

    def of_message(message: Any, found: set[str]) -> None:
        if message.HasField(name):
            find(getattr(message, name), found)

    return of_message


def _entries(name: str, step: TwinMapStep, path: str) -> Find:
    find = None if isinstance(step.value, _WITHOUT) else finder(step.value, path)

    def of_entries(message: Any, found: set[str]) -> None:
        for entry in getattr(message, name):
            for one in UnknownFieldSet(entry):
                found.add(inner_path(path, f"#{one.field_number}"))
            if find is not None:
                find(entry.value, found)

    return of_entries
