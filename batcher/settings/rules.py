"""Refuse settings that cannot work together, before anything is opened.

Each part checks itself what concerns it alone (topics, properties, paths), when it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from batcher.options import Fault, Section, show_size
from batcher.plugins import REGISTRIES, registry_of
from batcher.settings.compose import chosen, section_of
from batcher.settings.model import Settings
from batcher.settings.routing import routing_faults

# The values of one batch travel in one Arrow binary array, whose 32-bit offsets end at 2 GiB. Half of that
# leaves room for the last fetch, which is added as a whole.
MAX_BATCH_BYTES: Final = 1 << 30


MAX_PORT: Final = 65535


class Problem(NamedTuple):
    """Say what is wrong with the settings at these paths, the first being the one to change."""

    paths: tuple[tuple[str, ...], ...]
    message: str


def conflicts(settings: Settings) -> Iterator[Problem]:
    """Yield what is impossible whatever the verb."""
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if isinstance(section, Section):
            yield from _located(name, section.impossible())
    batch, dlq, retry = settings.batch, settings.dlq, settings.retry
    if batch.max_bytes > MAX_BATCH_BYTES:
        yield Problem((("batch", "max_bytes"),), f"at most {show_size(MAX_BATCH_BYTES)}: a batch is one Arrow array")
    elif batch.memory < batch.max_bytes:
        sizes = f"{show_size(batch.memory)} is less than one batch of {show_size(batch.max_bytes)}"
        yield Problem((("batch", "memory"), ("batch", "max_bytes")), f"{sizes} (--batch.max-bytes)")
    if dlq.topic and dlq.path:
        yield Problem(
            (("dlq", "topic"), ("dlq", "path")), "cannot go with --dlq.path: choose one place for dead letters"
        )
    yield from _queue(settings)
    yield from (Problem((path,), message) for path, message in routing_faults(settings))
    if retry.max_wait < retry.wait:
        yield Problem((("retry", "max_wait"), ("retry", "wait")), "is less than the first wait (--retry.wait)")
    if retry.max_elapsed is not None and retry.max_elapsed.total_seconds() <= 0:
        yield Problem((("retry", "max_elapsed"),), "is none or more than 0s")


def unshared(settings: Settings) -> Iterator[Problem]:
    """Yield what several workers cannot have."""
    if settings.workers == 1:
        return
    for kind in REGISTRIES:
        name, section = section_of(settings, kind)
        if section is not None:
            yield from (Problem((("workers",), (name, field)), message) for field, message in section.unshared())
    if settings.max_records is not None:
        yield Problem(
            (("workers",), ("max_records",)), "cannot go with --max-records: no worker knows what the others have read"
        )
    port = int((settings.http.addr or ":0").rpartition(":")[2])
    if port and port + settings.workers - 1 > MAX_PORT:
        yield Problem((("http", "addr"), ("workers",)), f"worker I takes port + I, and {MAX_PORT} is the last one")


def missing(settings: Settings) -> Iterator[Problem]:
    """Yield what `run` needs and does not have."""
    if not settings.sink:
        known = ", ".join(registry_of("sink").with_options())
        yield Problem((("sink",),), f"where to write? {known}, or a name from `batcher plugins`")
    for kind in REGISTRIES:
        yield from lacking(settings, kind)
    yield from _located("http", settings.http.lacking())


def unread(settings: Settings) -> Iterator[Problem]:
    """Yield what no chosen plug-in would look at: a mistake there would stay unnoticed."""
    if not settings.options or not settings.sink:
        return
    kinds = [kind for kind in REGISTRIES if chosen(settings, registry_of(kind)) is not None]
    sections = {kind: section_of(settings, kind) for kind in kinds}
    # A plug-in that is not there has no section either: making it reports that.
    if all(section is not None for _, section in sections.values()):
        yield Problem(
            (("options",),), f"the sink {settings.sink} does not read it: its settings are --{sections['sink'][0]}.*"
        )


def lacking(settings: Settings, kind: str) -> Iterator[Problem]:
    """Yield what the chosen plug-in of a kind needs and does not have."""
    name, section = section_of(settings, kind)
    if section is not None:
        routed = section.routed if settings.route else ""
        yield from _located(name, (fault for fault in section.lacking() if not routed or fault.field != routed))


def _queue(settings: Settings) -> Iterator[Problem]:
    """Yield what cannot go with `--dlq.queue`: each of the built-in places has a setting of its own for where it is."""
    dlq = settings.dlq
    needs = {"kafka": ("topic", dlq.topic), "directory": ("path", dlq.path)}
    if dlq.queue is None:
        return
    for queue, (field, value) in needs.items():
        if dlq.queue == queue and not value:
            yield Problem((("dlq", field),), f"is needed by --dlq.queue {queue}")
        if dlq.queue != queue and value:
            yield Problem(
                (("dlq", field), ("dlq", "queue")), "cannot go with --dlq.queue: choose one place for dead letters"
            )


def _located(section: str, faults: Iterable[Fault]) -> Iterator[Problem]:
    return (Problem(((section, field),), message) for field, message in faults)
