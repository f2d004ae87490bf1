"""Write logs to stderr, one line an event, for all: this project, the drivers, the standard library.

Text that came from outside cannot forge a line, because control characters are escaped. Secrets in the settings are
replaced wherever they turn up. Records of the data never belong here.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal, TextIO
from urllib.parse import quote, quote_plus

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["auto", "console", "json"]

HIDDEN: Final = "***"

# Shorter texts are part of too many words to be replaced; a password that short is no secret anyway.
_MIN_SECRET: Final = 4

# C0 and C1 controls, the line and paragraph separators some viewers obey, and the marks that turn reading order
# around. What is in here can start a line, move the cursor or make text look like other text.
_CONTROLS: Final = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
} | {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}

_secrets: set[str] = set()

PER_BATCH: Final = frozenset({"batch_written", "rows_found", "redeliveries", "pipeline_ended"})
"""Events that a person is spared: a line now and then says the same, and a sentence at the end (`--log.level debug`
shows them). A program that reads the log gets each."""

# What colours a text and takes no room.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

NARROWEST: Final = 40
"""Columns below which nothing is wrapped: no terminal of a person is that narrow."""


class _Stderr(logging.StreamHandler[TextIO]):
    """Write to what `sys.stderr` is at that moment: a live display replaces it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there
        return sys.stderr


def get(name: str) -> Any:
    """Return a logger whose methods take an event and key-value pairs."""
    return structlog.stdlib.get_logger(name)


def hide(texts: Collection[str]) -> None:
    """Replace these texts, however a driver spells them, in everything that is logged or scrubbed from now on."""
    for text in texts:
        if len(text) >= _MIN_SECRET:
            _secrets.update((text, *_spellings(text)))


def _spellings(text: str) -> Iterator[str]:
    """Yield a text as it appears inside a `repr`, in JSON and in a URL."""
    yield repr(text)[1:-1]
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    for safe in ("", "/", "/:@!$&'()*+,;="):
        yield quote(text, safe=safe)
    yield quote_plus(text)


def scrub(text: str) -> str:
    """Return text with every hidden text replaced."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def one_line(text: str) -> str:
    """Return text that is safe to print as part of one line: scrubbed, control characters escaped."""
    return scrub(text).translate(_CONTROLS)


def scrubbed_traceback(error: BaseException) -> str:
    """Return the traceback of a bug without secrets, as indented lines that cannot be taken for log lines."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return "\n".join(f"  {one_line(line)}" for line in lines)


def columns() -> int:
    """Return the width of the terminal that stderr is; 0 where it is none."""
    try:
        wide = os.get_terminal_size(sys.__stderr__.fileno()).columns if sys.__stderr__ is not None else 0
    except (OSError, ValueError, AttributeError):
        return 0
    return wide if wide >= NARROWEST else 0


def wrapped(text: str, width: int) -> str:
    """Return text with its first line broken at blanks so that it fits a width; 0 leaves it as it is.

    What is longer than a line stays whole, and so do further lines: a traceback has its own.
    """
    line, end, rest = text.partition("\n")
    if not width or len(_COLOUR.sub("", line)) <= width:
        return text
    made, used = [""], 0
    for word in line.split(" "):
        room = len(_COLOUR.sub("", word))
        if used and used + 1 + room > width:
            made.append(f"  {word}")
            used = 2 + room
        else:
            made[-1] += f" {word}" if used else word
            used += room + (1 if used else 0)
    return "\n".join(made) + end + rest


def setup(format_: Format = "auto", level: str = "info", worker: int | None = None) -> Literal["console", "json"]:
    """Send all logs to stderr in a format, from a level up, and return the format that was chosen.

    Each line of one of several workers has the worker's number. It may be called again, also by tests.
    """
    terminal = sys.stderr.isatty()
    console = format_ == "console" or (format_ == "auto" and terminal)
    people = console and terminal and level != "debug"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        # Who logs it and in which fraction of a second takes half of a narrow terminal.
        *(() if people else (structlog.stdlib.add_logger_name,)),
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people),
        structlog.processors.StackInfoRenderer(),
    ]
    if worker is not None:
        # This is not a context variable: threads begin without those.
        shared.append(lambda _logger, _method, event: {**event, "worker": worker})
    colors = terminal and not os.environ.get("NO_COLOR")
    renderer: Processor = structlog.processors.JSONRenderer(default=str)
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=colors,
            exception_formatter=structlog.dev.plain_traceback,
            pad_event_to=0 if people else 30,
            pad_level=not people,
        )
    handler = _Stderr()
    if console and level != "debug":
        handler.addFilter(_not_per_batch)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _render_exception,
                _escape if console else _scrub,  # JSON escapes by itself
                renderer,
                *((lambda _logger, _method, text: wrapped(str(text), columns()),) if people else ()),
            ],
        )
    )
    # A line that cannot be written (stderr is full, or its reader has gone) is no reason for a traceback there either.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The clients of HTTP and ClickHouse say at info and debug what this project's own events already say.
    for noisy in ("urllib3", "clickhouse_connect", "botocore", "httpx2"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return "console" if console else "json"


def _not_per_batch(record: logging.LogRecord) -> bool:
    return not (isinstance(record.msg, dict) and record.msg.get("event") in PER_BATCH)


def _render_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    found = event.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else sys.exc_info()[1] if found is True else found
    if isinstance(error, BaseException):
        event["exception"] = scrubbed_traceback(error)
    return event


def _scrub(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _scrubbed(value) for key, value in event.items()}


def _escape(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    # The traceback has its line breaks on purpose; lists and mappings are shown by `repr`, which escapes.
    return {
        key: value.translate(_CONTROLS) if isinstance(value, str) and key != "exception" else value
        for key, value in _scrub(logger, method, event).items()
    }


def _scrubbed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {scrub(str(key)): _scrubbed(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrubbed(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else scrub(str(value))
