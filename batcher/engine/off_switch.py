"""Pause a pipeline without ending it: from outside by a switch that is looked at, and by hand."""

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
    """Ask every second whether the pipeline is switched off; `pause` holds it as well, whatever the switch says.

    `ask` may raise anything: a switch that cannot be asked is on, so that a Redis that is away stops nothing. Without
    it there is only `pause`, and no thread. `name` says for people where the switch is. `changed` hears of every change
    of `off`, on the thread that caused it; the first time inside `start`.
    """

    def __init__(
        self,
        ask: Callable[[], bool] | None = None,
        action: SwitchAction = "hold",
        name: str = "",
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._ask = ask
        self.action = action
        self.name = name
        self._look_every_s = look_every_s
        self._switched_off = False
        self._paused_by = ""
        self._silent = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._changed: Callable[[], None] = lambda: None
        self._changing = threading.Lock()

    @property
    def off(self) -> bool:
        """Return whether the pipeline is switched off, or paused by hand. Any thread."""
        return self._switched_off or bool(self._paused_by)

    @property
    def holding(self) -> bool:
        """Return whether nothing is to be read and written now. Any thread."""
        return bool(self._paused_by) or (self._switched_off and self.action == "hold")

    @property
    def dropping(self) -> bool:
        """Return whether records are to be skipped now. Any thread."""
        return self._switched_off and self.action == "drop" and not self._paused_by

    @property
    def doing(self) -> str:
        """Return what the switch does now, in words for people; empty while it is on. Any thread."""
        reasons = [f"paused by {self._paused_by}"] if self._paused_by else []
        reasons += [f"switched off by {self.name}"] if self._switched_off else []
        if not reasons:
            return ""
        return f"{'held' if self.holding else 'records are dropped'}: {' and '.join(reasons)}"

    def pause(self, by: str) -> None:
        """Hold the pipeline until `resume`, also before it has begun; `by` says who did it. Any thread."""
        with self._changing:
            self._paused_by = by
            self._changed()

    def resume(self) -> None:
        """End the pause by hand. What was switched off otherwise stays off. Any thread."""
        with self._changing:
            self._paused_by = ""
            self._changed()

    def start(self, changed: Callable[[], None]) -> None:
        """Look once, so that nothing is read before, and go on in a thread."""
        with self._changing:
            self._changed = changed
            if self.off:
                changed()
        if self._ask is not None:
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
            off = self._ask is not None and self._ask()
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
        if off == self._switched_off:
            return
        with self._changing:
            self._switched_off = off
            if off:
                log.warning("switched_off", switch=self.name, action=self.action)
            else:
                log.info("switched_on", switch=self.name)
            self._changed()

    def _run(self) -> None:
        while not self._ended.wait(self._look_every_s):
            self.look()
