"""One of several workers: `batcher run … --workers N --as-worker I`, as `workers.py` starts it.

Its standard input is a socket to its parent. A byte that comes in is one signal. The end means that the parent is gone,
however it ended. The summary goes out at the end. Signals would not do: they reach a whole process group, or everything
in a container, besides the parent that passes them on, and a stop would be counted twice.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.signals import heard_by
from batcher.settings import Settings, UsageError

if TYPE_CHECKING:
    from batcher.engine.pipeline import Pipeline


SIGNAL: Final = b"."
PAUSE: Final = b"p"
RESUME: Final = b"r"
FLUSH: Final = b"f"
"""What the parent says."""

TELL_EVERY_S: Final = 2.0
"""How often a worker says how much is left to read."""


class ParentLink:
    """Do what the parent says: the first `.` is a stop, the second an abort; its end is a stop, too.

    `p`, `r` and `f` are what its page was told: pause, resume, flush.

    `line` is closed with the process. Where none is given it is the standard input. With `tells` it says how much is
    left to read, one JSON object a line.
    """

    def __init__(self, line: socket.socket | None = None, *, tells: bool = False) -> None:
        self._tells = tells
        self._said = threading.Lock()
        self._ended = threading.Event()
        try:
            self._line = line or socket.socket(fileno=0)
        except OSError:
            raise UsageError(["--as-worker: only the processes that --workers starts have it"]) from None
        self.seen = 0

    @contextmanager
    def sent_to(self, pipeline: Pipeline) -> Iterator[None]:
        """Listen while the context is open. Signals stop as well, however often they come, and never abort."""

        def listen(_number: int, _frame: FrameType | None) -> None:
            pipeline.stop()

        # Blocked until the parent says something, and left behind at the end of the process.
        threading.Thread(target=self._obey, args=(pipeline,), name="tether", daemon=True).start()
        if self._tells:
            threading.Thread(target=self._tell, args=(pipeline,), name="backlog", daemon=True).start()
        with heard_by(listen):
            yield

    def report(self, facts: Mapping[str, Any]) -> None:
        """Send the summary, unless the parent is gone."""
        self._ended.set()
        with suppress(OSError), self._said:
            self._line.sendall(json.dumps(facts).encode())

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Send something before the summary, one JSON object a line. Any thread."""
        with suppress(OSError), self._said:
            if not self._ended.is_set():
                self._line.sendall(json.dumps(facts).encode() + b"\n")

    def _tell(self, pipeline: Pipeline) -> None:
        while not self._ended.wait(TELL_EVERY_S):
            records, whole = pipeline.backlog
            if records is not None:
                self.tell({"backlog": records, "whole": whole})

    def _obey(self, pipeline: Pipeline) -> None:
        from batcher.telemetry import logs

        with suppress(OSError):
            while word := self._line.recv(1):
                if word != SIGNAL:
                    _obeyed(word, pipeline)
                    continue
                self.seen += 1
                if self.seen > 1:
                    pipeline.abort()
                pipeline.stop()
        logs.get(__name__).warning("parent_gone", hint="what was read is written and committed, then this worker ends")
        pipeline.stop()


def _obeyed(word: bytes, pipeline: Pipeline) -> None:
    if word == PAUSE:
        pipeline.pause("the page")
    elif word == RESUME:
        pipeline.resume()
    elif word == FLUSH:
        pipeline.flush()


def own(settings: Settings, number: int) -> Settings:
    """Return the settings of one worker: those that only one process can have become its own.

    Its parent has the address itself, where it answers for the first worker too. Only the parent is controlled.
    """
    http = settings.http
    if http.addr is not None:
        host, _, port = http.addr.rpartition(":")
        # 0 gives each worker any port that is free.
        addr = f"{host}:{int(port) + number if int(port) else 0}" if number else "127.0.0.1:0"
        alone = {"addr": addr, "control": False, "token_file": None, "remote_control": False}
        http = http.model_copy(update=alone)
    own_sections = {name: getattr(settings, name).of_worker(number) for name in settings.owners}
    return settings.model_copy(update={**own_sections, "http": http})
