"""Pause a pipeline from outside, without ending it: somebody switches it off and on again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Literal

import structlog

log = structlog.get_logger(__name__)

SwitchAction = Literal["hold", "drop"]
"""While it is off: read and write nothing, or skip what is read."""

LOOK_EVERY_S: Final = 1.0


class OffSwitch:
    """Ask every second whether the pipeline is switched off.

    `ask` may raise anything: a switch that cannot be asked is on, so that a Redis that is away stops nothing. `name`
    says for people where the switch is. `changed` hears of every change, on the thread of the switch; the first time
    inside `start`.
    """

    def __init__(
        self, ask: Callable[[], bool], action: SwitchAction, name: str, *, look_every_s: float = LOOK_EVERY_S
    ) -> None:
        self._ask = ask
        self.action = action
        self.name = name
        self._look_every_s = look_every_s
        self._off = False
        self._silent = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._changed: Callable[[bool], None] = lambda _: None

    @property
    def off(self) -> bool:
        """Return whether the pipeline is switched off. Any thread."""
        return self._off

    @property
    def dropping(self) -> bool:
        """Return whether records are to be skipped now. Any thread."""
        return self._off and self.action == "drop"

    @property
    def doing(self) -> str:
        """Return what the switch does now, in words for people; empty while it is on. Any thread."""
        if not self._off:
            return ""
        return f"{'held' if self.action == 'hold' else 'records are dropped'}: switched off by {self.name}"

    def start(self, changed: Callable[[bool], None]) -> None:
        """Look once, so that nothing is read before, and go on in a thread."""
        self._changed = changed
        self.look()
        self._thread = threading.Thread(target=self._run, name="off-switch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. A second call is harmless."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2 * self._look_every_s)

    def look(self) -> None:
        """Ask once."""
        try:
            off = self._ask()
        except Exception as error:  # whatever the switch is made of: it must not end a pipeline
            if not self._silent:
                log.warning(
                    "off_switch_unreachable",
                    switch=self.name,
                    error=f"{type(error).__name__}: {error}",
                    hint="it counts as on, and is asked again",
                )
            self._silent, off = True, False
        else:
            if self._silent:
                log.info("off_switch_back", switch=self.name)
            self._silent = False
        if off == self._off:
            return
        self._off = off
        if off:
            log.warning("switched_off", switch=self.name, action=self.action)
        else:
            log.info("switched_on", switch=self.name)
        self._changed(off)

    def _run(self) -> None:
        while not self._ended.wait(self._look_every_s):
            self.look()
