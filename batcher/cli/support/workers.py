"""`--workers N`: a parent process that starts N workers of one consumer group on this machine and looks after them.

With `--workers MIN..MAX` it starts more of them while more is left to read, and drains one after the other while there
is less (`scaling.py`). Kafka shares out the partitions; nothing is coordinated here. The parent loads no data and none
of the libraries for it. What a worker is told, and what it tells, goes over one socket each (`worker.py`).

It is long because starting, replacing, draining and asking workers all go round in one loop.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Literal

from batcher.cli.support.early import STOPPED
from batcher.cli.support.outcome import INTERRUPTED
from batcher.cli.support.refused import ALL_REFUSED, all_refused
from batcher.cli.support.scaling import Backlog, ScalePolicy, Scaler
from batcher.cli.support.signals import heard_by
from batcher.cli.support.team_page import TeamPage
from batcher.cli.support.totals import Facts, total
from batcher.settings import Settings
from batcher.telemetry import logs

Next = Literal["over", "again", "halt"]
"""What follows the end of a worker: nothing, its replacement, or the end of all."""

LOOK_S: Final = 0.1
"""How often the parent checks its workers and looks for a signal."""

LONGEST_PAUSE_S: Final = 30.0

PROVEN_S: Final = 60.0
"""A worker that lived this long and then ended begins with the shortest pause again."""

# The first of these with which any worker ended, where none has stopped the others: it has to be looked at first.
_WORST: Final = (1, 2, 78, 69, INTERRUPTED, 75)

_MEANINGS: Final = ("stop", "abort", "kill")

log = logs.get(__name__)


def supervise(settings: Settings, argv: Sequence[str], *, as_json: bool) -> int:
    """Run the workers of the settings to their end and return the exit code.

    `argv` is the command line of `run`; its flags are those of every worker. With `as_json` one summary of all goes
    to stdout. Raise ConfigurationError where the page cannot be served.
    """
    began = time.monotonic()
    least = settings.workers.least
    policy = ScalePolicy(least, settings.workers, settings.worker_backlog)
    with TeamPage.of(settings) as page:
        team = WorkerSupervisor(
            [arguments_of(argv, number) for number in range(settings.workers)],
            until_eof=settings.until_eof,
            policy=policy if least < settings.workers else None,
            page=page,
        )
        code = team.run()
    seconds = time.monotonic() - began
    facts = total(team.reports, seconds, code)
    if code == 0 and (message := all_refused(facts)):
        code = ALL_REFUSED
        facts = total(team.reports, seconds, code)
        log.error("all_refused", reason=message)
    log.info("workers_ended", **facts)
    if as_json:
        print(json.dumps(facts), flush=True)
    return code


def arguments_of(argv: Sequence[str], number: int) -> list[str]:
    """Return the command of one worker: all of them get the same flags and variables, and know their number."""
    return [sys.executable, "-m", "batcher", "run", *argv, "--as-worker", str(number)]


def next_after(code: int, *, stopping: bool, until_eof: bool, replaces: bool) -> Next:
    """Say what follows the end of a worker with an exit code, which is negative where a signal killed it.

    What only a person can repair would be the same for the others and the next time, so it ends all. A server that is
    away ends all only at the start: a worker that `replaces` another one tries again, while the others wait as well.
    """
    if stopping or (code == 0 and until_eof):
        return "over"
    if code in (0, 75) or code < 0 or (code == 69 and replaces):
        return "again"
    return "halt"


def pause_s(failures: int) -> float:
    """Return the wait before the next start after `failures` in a row: 1 s, then twice as long each time up to 30 s."""
    return min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S)


def worst(codes: Sequence[int]) -> int:
    """Return the exit code that stands for all; a killed worker lost nothing and counts as one that was cut short."""
    found = {75 if code < 0 else code for code in codes}
    return next((code for code in (*_WORST, *sorted(found)) if code in found and code), 0)


class WorkerSupervisor:
    """Keep one process for each command running until all are over; `reports` has what they reported at their ends.

    With a `policy` it keeps as many of them as that says, those with the lowest numbers.
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        *,
        until_eof: bool,
        policy: ScalePolicy | None = None,
        page: TeamPage | None = None,
    ) -> None:
        self._members = [WorkerProcess(number, command) for number, command in enumerate(commands)]
        self._scaler = None if policy is None else Scaler(policy)
        for member in self._members[len(commands) if policy is None else policy.least :]:
            member.idle = True
        self._until_eof = until_eof
        self._page = page
        self._signals = 0
        self._passed_on = 0
        self._halted: int | None = None
        self._codes: list[int] = []
        self._begun = False
        self.reports: list[Facts] = []

    def run(self) -> int:
        """Run until the last worker is over and return the exit code that stands for all.

        The first SIGTERM or SIGINT stops all of them, the second aborts, the third kills. Where that was before any of
        them had begun, the code is 75.
        """

        def listen(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        try:
            with heard_by(listen):
                while not all(member.over or member.idle for member in self._members):
                    self._pass_on()
                    self._scale(time.monotonic())
                    for member in self._members:
                        if not (member.over or member.idle):
                            self._look_after(member)
                    if self._page is not None:
                        self._signals += self._page.look(self._members, stopping=self._stopping)
                    time.sleep(LOOK_S)
        finally:
            # After a bug: the workers that still run learn that the parent is gone, and stop.
            for member in self._members:
                member.let_go()
        if self._halted is not None:
            return self._halted
        # Where all were stopped before they had begun, nothing excuses them: it is the same as for one process alone.
        return worst(self._codes) or (STOPPED if self._signals and not self._begun else 0)

    @property
    def _stopping(self) -> bool:
        return self._signals > 0 or self._halted is not None

    def _pass_on(self) -> None:
        while self._passed_on < self._signals:
            self._passed_on += 1
            log.info("signal_passed_on", meaning=_MEANINGS[min(self._passed_on, len(_MEANINGS)) - 1])
            for member in self._members:
                member.tell(self._passed_on)

    def _scale(self, now: float) -> None:
        """Start or drain workers, where the number follows what is left to read."""
        if self._scaler is None or self._stopping or any(member.over for member in self._members):
            return  # one that is over has seen the end: there is nothing left for more of them
        running = [member for member in self._members if not member.idle and not member.leaving]
        backlogs = [found for member in running if (found := member.heard()) is not None]
        wanted = self._scaler.wanted(backlogs, len(running), now)
        if wanted == len(running):
            return
        log.info("workers_scaled", workers=wanted, before=len(running), backlog=[one.records for one in backlogs])
        for member in running[wanted:]:
            member.leaving = True
            member.tell(1)
        for member in [one for one in self._members if one.idle][: max(wanted - len(running), 0)]:
            member.idle, member.due = False, now

    def _forgiven(self, code: int, report: Facts | None) -> int:
        """Return the exit code of a worker; 0 where it was stopped before it had begun, with nothing read."""
        return 0 if self._signals and code == STOPPED and not _consumed(report) else code

    def _look_after(self, member: WorkerProcess) -> None:
        if member.due is not None:
            if self._stopping:
                member.over = True
            elif time.monotonic() >= member.due:
                member.start()
            return
        code = member.ended()
        if code is None:
            return
        if member.report is not None:
            self.reports.append(member.report)
        self._begun |= code == 0 or _consumed(member.report)
        code = self._forgiven(code, member.report)
        following = next_after(code, stopping=self._stopping, until_eof=self._until_eof, replaces=member.starts > 1)
        shown: dict[str, Any] = {"worker": member.number, **_ending(code)}
        if member.leaving and following == "again":
            # Drained, or killed on the way, which lost nothing either.
            member.leaving, member.idle = False, True
            log.info("worker_drained", **shown)
            return
        if following == "again":
            shown["again_in_s"] = member.start_later()
        else:
            member.over = True
            self._codes.append(code)
        if following == "halt":
            self._halted = code
            shown["hint"] = "starting it again would not help: the others are stopped"
            for other in self._members:
                other.tell(1)
        (log.warning if code else log.info)("worker_ended", **shown)


class WorkerProcess:
    """One worker: its process, the line to it, and when the next process is due where there is none."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self.number = number
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._told = 0
        self._failures = 0
        self._started_at = 0.0
        self.starts = 0
        self.due: float | None = 0.0
        self.over = False
        self.idle = False
        """It is not needed now."""
        self.leaving = False
        """It was told to stop, because fewer are enough."""
        self._said = b""
        self._backlog: Backlog | None = None
        self.addr = ""
        """Where its metrics are, once it has told."""
        self.seen: Mapping[str, Any] | None = None
        """What it told last for the page."""
        self.report: Facts | None = None

    def start(self) -> None:
        """Start a process; where the system refuses one, start it later."""
        self._started_at, self._told, self.report = time.monotonic(), 0, None
        self._said, self._backlog, self.addr, self.seen = b"", None, "", None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # A process group of its own: Ctrl-C goes to the parent, which ends the workers in order.
                self._process = subprocess.Popen(self._command, stdin=theirs.fileno(), process_group=0)  # noqa: S603  # ourselves
            except OSError as error:
                ours.close()
                log.warning(
                    "worker_not_started", worker=self.number, reason=error.strerror, again_in_s=self.start_later()
                )
                return
        self._line, self.due = ours, None
        self.starts += 1
        log.info("worker_started", worker=self.number, pid=self._process.pid)

    def start_later(self) -> float:
        """Make the next start due, and return in how many seconds."""
        now = time.monotonic()
        self._failures = 1 if now - self._started_at >= PROVEN_S else self._failures + 1
        wait_s = pause_s(self._failures)
        self.due = now + wait_s
        return wait_s

    def tell(self, signals: int) -> None:
        """Let a running process know how many signals there were; the third one kills it."""
        if self._line is None or self._process is None:
            return
        if signals > len(_MEANINGS) - 1:
            self._process.kill()
        while self._told < signals:
            self._told += 1
            with suppress(OSError):  # it has just ended
                self._line.send(b".")

    def say(self, word: bytes) -> None:
        """Pass on what the page was told."""
        if self._line is not None:
            with suppress(OSError):  # it has just ended
                self._line.send(word)

    @property
    def running(self) -> bool:
        """Return whether there is a process."""
        return self._line is not None

    def heard(self) -> Backlog | None:
        """Return what it said last about what is left to read; None where it has said nothing."""
        if self._line is not None:
            with suppress(OSError):
                while piece := self._line.recv(1 << 16, socket.MSG_DONTWAIT):
                    self._said += piece
        # The summary, which comes last, has no end of line.
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            with suppress(ValueError, TypeError, KeyError):
                self._take(json.loads(line))
        return self._backlog

    def _take(self, found: Facts) -> None:
        if "page" in found:
            self.seen = found["page"]
        elif "addr" in found:
            self.addr = str(found["addr"])
        else:
            self._backlog = Backlog(int(found["backlog"]), bool(found["whole"]))

    def ended(self) -> int | None:
        """Return the exit code once the process has ended, with what it said in `report`; else None."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            self.report = self._read_report()
            self.let_go()
        return code

    def let_go(self) -> None:
        """Close the line. A second call is harmless."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _read_report(self) -> Facts | None:
        if self._line is None:
            return None
        # Nothing is written any more, but a process that the worker started may hold its end open.
        self._line.settimeout(1.0)
        said = self._said
        with suppress(OSError):
            while piece := self._line.recv(1 << 16):
                said += piece
        try:
            found = json.loads(said.rpartition(b"\n")[2])
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def _consumed(report: Facts | None) -> bool:
    return report is not None and bool(report.get("consumed"))


def _ending(code: int) -> Facts:
    if code >= 0:
        return {"exit": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:  # a real-time signal has no name
        return {"signal": -code}
