"""What a run shows on a terminal: a live line, a line of the log now and then, and one sentence at the end."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.progress import RunMeter, RunProgress
from batcher.cli.support.spans import plural, span
from batcher.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from batcher.engine.pipeline import Pipeline

TELL_EVERY_S: Final = 5.0

REFRESH_PER_S: Final = 4

BAR: Final = 40

REFUSALS: Final = "batcher.engine.refusals"


def has_end(settings: Settings) -> bool:
    """Return whether a run stops at the end of what there is."""
    source = getattr(settings, "kafka", None)
    return settings.until_eof or (settings.source == "kafka" and getattr(source, "end", None) is not None)


@contextmanager
def watching(pipeline: Pipeline, settings: Settings, fields: RefusedFields, *, live: bool) -> Iterator[None]:
    """Tell in the log now and then how a run goes, for as long as the context is open; with `live` show it as well.

    Meanwhile `fields` hears of refused records.
    """
    refusals = logging.getLogger(REFUSALS)
    refusals.addHandler(fields)
    ended = threading.Event()
    teller = threading.Thread(
        target=_tell, args=(RunMeter(pipeline, ends=has_end(settings)), ended), name="progress", daemon=True
    )
    teller.start()
    try:
        if live:
            with _live(RunMeter(pipeline, ends=has_end(settings)), settings):
                yield
        else:
            yield
    finally:
        ended.set()
        teller.join()
        refusals.removeHandler(fields)


def _tell(meter: RunMeter, ended: threading.Event) -> None:
    from batcher.telemetry import logs

    log = logs.get(__name__)
    said: object = None
    looks = 0
    # Seen seldom, what the client counts now and then would be taken for newer than it is.
    while not ended.wait(1 / REFRESH_PER_S):
        now = meter.look()
        looks += 1
        if looks % round(TELL_EVERY_S * REFRESH_PER_S):
            continue
        # An idle pipeline says so once.
        shown = (now.done, now.state, now.waiting.partition(",")[0])
        if shown != said:
            log.info(", ".join([*now.facts, *([] if now.waiting == "writing" else [now.waiting])]))
        said = shown


@contextmanager
def _live(meter: RunMeter, settings: Settings) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False, no_color=bool(os.environ.get("NO_COLOR")))
    stop = f"stopping within {span(settings.stop_timeout.total_seconds())}; Ctrl-C again ends at once, nothing is lost"
    # Logs go through `sys.stderr`, which the display replaces meanwhile, so they appear above the line.
    with Live(
        get_renderable=lambda: picture(meter.look(), stop),
        console=console,
        refresh_per_second=REFRESH_PER_S,
        transient=True,
        redirect_stdout=False,
    ):
        yield


def picture(now: RunProgress, stop: str) -> RenderableType:
    """Return the live view: what is done and how fast, how far that is, and what is waited for, wrapped at words."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    rows: list[RenderableType] = []
    if now.share is not None:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1.0, completed=now.share, width=BAR), f"{now.share:.0%}")
        rows.append(bar)
    # A fact is not torn apart where there is room for it on the next line.
    facts = [fact.replace(" ", "\u00a0") for fact in now.facts]
    rows.append(Text(" · ".join(facts)))
    rows.append(Text(now.waiting, "dim"))
    if now.state == "draining":
        rows.append(Text(stop, "yellow"))
    return Group(*rows)


class RefusedFields(logging.Handler):
    """Remember, from what the log says of refused records, which field it was that most were refused for."""

    def __init__(self) -> None:
        super().__init__()
        self._fields: dict[str, Counter[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        said = record.msg
        if isinstance(said, dict) and said.get("event") == "records_refused" and said.get("field"):
            self._fields.setdefault(str(said["reason"]), Counter())[str(said["field"])] += int(said["count"])

    def most_for(self, reason: str) -> str:
        """Return the field that was named most often with a reason; empty where none was."""
        found = self._fields.get(reason)
        return found.most_common(1)[0][0] if found else ""


def closing(facts: Mapping[str, Any], settings: Settings, fields: RefusedFields) -> str:
    """Return one sentence that says what a run has done; `facts` are those of its summary."""
    if not facts.get("consumed") and not facts.get("written"):
        if has_end(settings) and not settings.until_eof:
            return "nothing was left to load before --kafka.end; another -g loads the same part again"
        return f"nothing came in {span(facts.get('seconds', 0.0))}"
    text = f"{plural(facts['written'], 'row')} in {span(facts['seconds'])}"
    for name, what in (
        ("duplicates_suppressed", "were there already"),
        ("skipped", "skipped"),
        ("released", "put back"),
    ):
        if facts[name]:
            text += f", {facts[name]:,} {what}"
    if facts["dead_lettered"]:
        text += f", {_dead_letters(facts, settings, fields)}"
    if unknown := facts["unknown_fields"]:
        field, count = next(iter(unknown.items()))
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        text += f"; not stored: {plural(len(unknown), 'field')}, `{field}` ({count:,} rows){others}"
    return text


def _dead_letters(facts: Mapping[str, Any], settings: Settings, fields: RefusedFields) -> str:
    reasons: Mapping[str, int] = facts["dead_letter_reasons"]
    text = plural(facts["dead_lettered"], "dead letter")
    if reasons:
        reason = next(iter(reasons))
        field = fields.most_for(reason)
        text += f": most `{reason}`" + (f" in `{field}`" if field else "")
    place = dead_letter_place(settings)
    return f"{text}; see them with `batcher dlq ls {place}`" if place else text


def dead_letter_place(settings: Settings) -> str:
    """Return the flags with which `batcher dlq` finds the dead letters of a run; empty for a queue of other people."""
    dlq = settings.dlq
    if dlq.path:
        return f"--dlq.path {shlex.quote(dlq.path)}"
    brokers = getattr(getattr(settings, "kafka", None), "brokers", None)
    return f"-b {shlex.quote(brokers)} --dlq.topic {shlex.quote(dlq.topic)}" if dlq.topic and brokers else ""


def say(text: str) -> None:
    """Print one sentence on stderr; on a terminal it is wrapped at words. One that cannot be written is given up."""
    from batcher.telemetry import logs

    with suppress(OSError, ValueError):
        print(logs.wrapped(logs.one_line(text), logs.columns()), file=sys.stderr, flush=True)
