"""Documents like those that a code host sends to its subscribers: deep, wide, and of many kinds in one topic."""

from __future__ import annotations

import json
import random
from typing import Any, Final

KINDS: Final = 60
"""Kinds of events. Each has objects of its own beside those that all have, so that few columns of many are filled."""

PARTS: Final = 95
"""Different objects, of which an event has two."""


def documents(count: int, seed: int = 1) -> list[bytes]:
    """Return so many documents of about 11 KB, the same in every run; together they have some 100 columns.

    Some fields are an object here and a text there, so that they are kept as JSON text. Some times are texts in most
    documents and numbers in others.
    """
    dice = random.Random(seed)  # noqa: S311 - the same documents in every run
    return [json.dumps(_event(number, dice)).encode() for number in range(count)]


def _event(number: int, dice: random.Random) -> dict[str, Any]:
    kind = dice.randrange(KINDS)
    event: dict[str, Any] = {
        "action": dice.choice(["opened", "closed", "edited"]),
        "delivery": number,
        "repository": _repository(number, dice),
        "sender": _user(number, dice),
    }
    for turn in range(2):
        part = (kind * 7 + turn * 23) % PARTS
        event[f"part_{part}"] = _part(part, number, dice)
    return event


def _urls(base: str, names: str) -> dict[str, str]:
    return {f"{name}_url": f"https://api.code.example/{base}/{name}{{/number}}" for name in names.split()}


def _time(number: int) -> str:
    return f"2026-03-04T{number % 24:02d}:{number % 60:02d}:05Z"


def _user(number: int, dice: random.Random) -> dict[str, Any]:
    login = f"user-{dice.randrange(10**5):05d}"
    names = "avatar gists starred subscriptions organizations repos events received followers following html"
    return {"login": login, "id": number, "site_admin": False, "type": "User"} | _urls(f"users/{login}", names)


def _repository(number: int, dice: random.Random) -> dict[str, Any]:
    names = (
        "archive assignees blobs branches clone collaborators comments commits compare contents contributors "
        "events forks git_commits git_refs git_tags hooks issue_comment issue_events issues keys labels "
        "languages merges milestones notifications pulls releases stargazers statuses subscribers tags teams trees"
    )
    found: dict[str, Any] = {"id": number, "name": f"repository-{number % 500}", "private": bool(number % 2)}
    found |= _urls(f"repos/{number % 500}", names) | {"owner": _user(number, dice), "license": None, "topics": []}
    # One event in a hundred has a number here, and the properties are of any kind.
    found["created_at"] = 1_772_600_000 + number if number % 100 == 7 else _time(number)
    found["pushed_at"] = _time(number + 1)
    found["properties"] = dice.choice([{}, {"team": "a", "tier": 1}, {"team": ["a", "b"]}])
    return found


def _part(part: int, number: int, dice: random.Random) -> dict[str, Any]:
    names = "html issue comments commits review statuses labels events timeline patch diff"
    found: dict[str, Any] = {"id": number, "number": number % 1000, "created_at": _time(number), "draft": False}
    found |= {f"field_{part}_{turn}": f"{dice.getrandbits(64):016x}" for turn in range(20)}
    found |= {"user": _user(number, dice), "author": _user(number + 1, dice)} | _urls(f"parts/{part}", names)
    found["labels"] = [{"id": turn, "name": f"label-{turn}", "default": False} for turn in range(number % 4)]
    if not part % 8:
        found["payload"] = dice.choice([{"task": "deploy", "env": {"name": "prod"}}, "deploy", {"count": 2}])
    return found
