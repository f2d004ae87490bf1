"""What cannot be a handler is refused at the start, in one line that says what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import ConfigurationError
from batcher.handler.function import HandlerFault, checked, is_async, place_of_function
from batcher.handler.message import Message
from sinks.handler.sink import HandlerOptions, HandlerSink


def plain(message: Message) -> None: ...


async def asynchronous(message: Message) -> None: ...


class Called:
    def __call__(self, message: Message) -> None: ...


class AsyncCalled:
    async def __call__(self, message: Message) -> None: ...


class WithArguments:
    def __init__(self, url: str) -> None: ...

    def __call__(self, message: Message) -> None: ...


class NotCalled:
    def handle(self, message: Message) -> None: ...


def nothing() -> None: ...


def two(message: Message, more: int) -> None: ...


def optional(message: Message, more: int = 0, *rest: int, **others: int) -> None: ...


def keyword(message: Message, *, needed: int) -> None: ...


def generator(message: Message) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("handler", "asynchronously"),
    [
        (plain, False),
        (asynchronous, True),
        (optional, False),
        (print, False),
        (functools.partial(two, more=1), False),
        (functools.partial(asynchronous), True),
        (Called, False),
        (Called(), False),
        (AsyncCalled, True),
        (AsyncCalled(), True),
    ],
)
def test_what_takes_one_argument_is_a_handler(handler: Any, asynchronously: bool) -> None:
    checked(handler, as_list=False)
    assert is_async(handler) == asynchronously


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (nothing, "is called with one argument, the message, and takes none"),
        (two, "is called with one argument, the message, and takes message, more"),
        (keyword, "takes message, needed"),
        ("a text", "is no function but a str"),
        (generator, "has a yield"),
        (WithArguments, "is made without arguments here"),
        (NotCalled, "whose instances cannot be called"),
        (NotCalled(), "is no function but a NotCalled"),
    ],
)
def test_what_takes_another_number_of_arguments_is_none(handler: Any, told: str) -> None:
    with pytest.raises(HandlerFault, match=told):
        checked(handler, as_list=False)


def test_a_handler_of_lists_is_told_that_it_gets_a_list() -> None:
    with pytest.raises(HandlerFault, match="one argument, the list of messages, and takes none"):
        checked(nothing, as_list=True)


MODULE = """
import missing_module_of_the_tests
"""

BROKEN = """
raise RuntimeError("no database")
"""

GOOD = """
number = 3
def handle(message): ...
async def later(message): ...
class Fails:
    def __init__(self): raise OSError("no file")
    def __call__(self, message): ...
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("needs_more", MODULE), ("broken", BROKEN), ("good", GOOD)):
        (tmp_path / f"{name}_handlers.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("good_handlers", {}, "is not of the form module:function"),
        ("nowhere_handlers:handle", {}, "there is no module 'nowhere_handlers'"),
        ("needs_more_handlers:handle", {}, "needs the Python module 'missing_module_of_the_tests'"),
        ("broken_handlers:handle", {}, "cannot be imported from broken_handlers: RuntimeError: no database"),
        ("good_handlers:missing", {}, "good_handlers has no 'missing'"),
        ("good_handlers:number", {}, "is no function but a int"),
        ("good_handlers:Fails", {}, "cannot be made: OSError: no file"),
        ("good_handlers:later", {"pool": "thread"}, "is an async def, which --handler.pool thread does not await"),
        ("good_handlers:later", {"pool": "process"}, "is an async def, which --handler.pool process does not await"),
        ("good_handlers:handle", {"pool": "async"}, "is no async def"),
        ("good_handlers:handle", {"timeout_s": 1.0}, "a thread cannot be ended"),
    ],
)
def test_a_handler_that_cannot_work_is_refused_when_the_sink_opens(
    name: str, options: dict[str, Any], told: str
) -> None:
    sink = HandlerSink(name, HandlerOptions(**options))
    with pytest.raises(ConfigurationError, match=told) as refused:
        sink.open()
    assert str(refused.value).startswith(f"--handler.function {name}: ")
    assert "\n" not in str(refused.value)
    sink.close()


@pytest.mark.parametrize("given", [lambda message: None, functools.partial(plain), Called()])
def test_a_process_cannot_have_what_is_at_the_top_of_no_module(given: Callable[[Any], object]) -> None:
    with pytest.raises(HandlerFault, match="another process cannot find it"):
        place_of_function(given)
    with pytest.raises(ConfigurationError, match="another process cannot find it"):
        HandlerSink(given, HandlerOptions(pool="process")).open()


@pytest.mark.parametrize("options", [{"workers": 0}, {"batch": -1}, {"max_attempts": 0}, {"timeout_s": 0.0}])
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="--handler"):
        HandlerOptions(**options)
