"""Every message that a user can get as an error, gathered from the code: one line that says what and where."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from batcher import errors
from tests.harness.processes import ROOT


class Message(NamedTuple):
    error: str
    place: str
    text: str


KINDS: Final = frozenset(
    {
        *(
            name
            for name, kind in vars(errors).items()
            if isinstance(kind, type) and issubclass(kind, errors.BatcherError)
        ),
        "UsageError",
        "Fault",
    }
)
"""Errors whose text is shown to people. A Fault follows the flag, variable or key that it belongs to."""

OURS: Final = frozenset({"SourceLost", "BatchSuperseded", "CommitUnconfirmed", "BatcherError"})
"""What is not about a setting or a target: the log says where, in fields of its own."""

WHERE: Final = re.compile(
    r"--\w|\{|(?<!\w)-[a-z]\b|pip install|Pipeline\(|^(Worker|ack|dlq|purge|a queue|the null sink)\b"
)
"""A flag, a verb, a name that is filled in, or what is to be installed or called."""

OF_USERS: Final = "batcher/transforms/python.py"
"""What a function of the user raises is named by its class."""


def _text(node: ast.AST | None) -> str | None:
    """Return a text as it is written, with what is filled in between braces; None for what is made elsewhere."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(
                str(one.value) if isinstance(one, ast.Constant) else f"{{{ast.unparse(one)}}}" for one in parts
            )
        case ast.BinOp(left=left, right=right):
            return f"{_text(left) or '{}'}{_text(right) or '{}'}"
        case ast.List(elts=[first, *_]):
            return _text(first)
    return None


def _messages() -> Iterator[Message]:
    for file in sorted(file for room in ("batcher", "sinks") for file in (ROOT / room).rglob("*.py")):
        if "testing" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (name := ast.unparse(node.func).rpartition(".")[2]) in KINDS:
                texts = [_text(argument) for argument in node.args[name == "Fault" :][:1]]
                if texts and texts[0] is not None:
                    yield Message(name, f"{file.relative_to(ROOT)}:{node.lineno}", texts[0])


MESSAGES: Final = tuple(_messages())


def wrong(message: Message) -> str:
    """Return what a message lacks; empty where it is as it should be."""
    if "\n" in message.text:
        return "is more than one line"
    if message.text.rstrip().endswith((".", "!")):
        return "ends like a sentence, and is followed by more in a log"
    if message.error in ("ConfigurationError", "SettingRefused", "UsageError") and "type(error)" in message.text:
        return "" if message.place.startswith(OF_USERS) else "names a class of Python, which tells nobody what to do"
    if message.error not in OURS | {"Fault"} and not WHERE.search(message.text):
        return "does not say where"
    return ""


def test_there_are_messages_of_every_reaction() -> None:
    assert len(MESSAGES) > 600
    assert {"ConfigurationError", "SinkUnavailable", "Unreachable", "DataGap", "Fault"} <= {
        one.error for one in MESSAGES
    }


@pytest.mark.parametrize("error", sorted({one.error for one in MESSAGES}))
def test_each_message_is_one_line_that_says_what_and_where(error: str) -> None:
    assert [f"{one.place} {why}: {one.text}" for one in MESSAGES if one.error == error and (why := wrong(one))] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--sink: x\ny", "more than one line"),
        ("it failed.", "sentence"),
        ("nothing is there", "where"),
        ("--x: {type(error).__name__}", "class"),
        ("--x: is missing", ""),
    ],
)
def test_a_poor_message_is_found(text: str, said: str) -> None:
    assert said in wrong(Message("ConfigurationError", "here:1", text))
    assert bool(said) == bool(wrong(Message("ConfigurationError", "here:1", text)))
