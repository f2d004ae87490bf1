"""Put the page together from the settings: what it observes, what it says about the program, and who may control it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from pydantic import ByteSize

from batcher import __version__, native
from batcher.options import show_size
from batcher.settings import Settings, masked, reference, show_duration
from batcher.telemetry.dashboard.control import Control, Controllable, read_token
from batcher.telemetry.dashboard.feed import Feed, FeedThread
from batcher.telemetry.dashboard.pages import DashboardPages

if TYPE_CHECKING:
    from batcher.engine.pipeline import Pipeline
    from batcher.protocols import DeadLetterQueue
    from batcher.telemetry.events import Subscriber

Tell = Callable[[Mapping[str, Any]], None]
"""What a worker tells its parent."""

_SHOWN_VERSIONS: Final = ("confluent-kafka", "clickhouse-connect", "pyarrow", "chdb", "kafka-batcher-native")


def control_of(settings: Settings, what: Controllable, held: Callable[[], str]) -> Control | None:
    """Return what obeys the page, None where nothing does. Raise ConfigurationError for a token file that is none."""
    if not settings.http.control or settings.http.token_file is None:
        return None
    return Control(what, read_token(settings.http.token_file), held)


def about(settings: Settings, *, control: bool) -> Mapping[str, Any]:
    """Return what the page says that does not change: the settings with secrets masked, and versions."""
    shown: dict[str, Any] = dict(masked(settings))
    usual: dict[str, Any] = dict(masked(type(settings)()))
    rows = []
    for row in reference(type(settings)):
        value, default = ((one[row.section] if row.section else one)[row.name] for one in (shown, usual))
        rows.append({"key": row.key, "value": _text(value), "changed": value != default})
    return {
        "settings": rows,
        "versions": {
            "batcher": __version__,
            **{name: found for name in _SHOWN_VERSIONS if (found := _version(name))},
        },
        "native": sorted(native.jobs()),
        "control": control,
        "payloads": settings.http.payloads,
        "dead_letters": settings.dlq.topic or settings.dlq.path or settings.dlq.queue or "",
        "source": settings.source,
        "sink": settings.sink or "",
    }


class PipelinePage:
    """Hold what the page of one pipeline hears of, which is there before the pipeline is."""

    def __init__(self, settings: Settings) -> None:
        from batcher.telemetry.dashboard.letters import WatchedDeadLetters
        from batcher.telemetry.dashboard.recorder import Recorder

        self._settings = settings
        self._recorder = Recorder()
        self._letters: WatchedDeadLetters | None = None
        self._watched = WatchedDeadLetters

    @property
    def subscriber(self) -> Subscriber:
        """Return what has to hear of the pipeline's events."""
        return self._recorder

    def watched(self, queue: DeadLetterQueue | None) -> DeadLetterQueue | None:
        """Return the queue with somebody watching what goes there."""
        if queue is not None:
            queue = self._letters = self._watched(queue, payloads=self._settings.http.payloads)
        return queue

    @contextmanager
    def of(self, pipeline: Pipeline, tell: Tell | None = None) -> Iterator[DashboardPages]:
        """Observe the pipeline while the context is open, and end the open pages with it.

        `tell` hears of each observation, on the thread of the page. Raise ConfigurationError for a token file that is
        none.
        """
        from batcher.telemetry.dashboard.observation import Observer

        control = control_of(self._settings, pipeline, lambda: pipeline.status().off_switch)
        feed = Feed(about(self._settings, control=control is not None))
        letters = self._letters
        observer = Observer(pipeline.status, self._recorder, *([] if letters is None else [letters.shown]))
        takers: list[Tell] = [feed.add] if tell is None else [feed.add, lambda seen: tell({"page": seen})]
        thread = FeedThread(observer, takers)
        thread.start()
        try:
            yield DashboardPages(feed, control)
        finally:
            thread.stop()
            feed.close()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _text(value: Any) -> str:
    """Return a setting as the command line has it."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, timedelta):
        return show_duration(value)
    return "" if value is None else show_size(value) if isinstance(value, ByteSize) else str(value)
