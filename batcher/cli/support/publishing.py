"""Find what `produce --to` can fill besides Kafka: sources whose plug-in offers a publisher."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from batcher.errors import ConfigurationError
from batcher.options import Section
from batcher.plugins import FoundPlugin, registry_of
from batcher.settings import Settings, UsageError, own_section

if TYPE_CHECKING:
    from batcher.protocols import Publisher


class PublishingPlugin(NamedTuple):
    """Hold a plug-in that offers a publisher, and its section."""

    plugin: FoundPlugin[Any]
    section: Section


@cache
def queues() -> Sequence[str]:
    """Return the built-in names that `--to` may have, Kafka first."""
    return ("kafka", *(found.name for found in _offering()))


@cache
def sections() -> Sequence[str]:
    """Return the sections of those but Kafka's, of which not all is needed."""
    return tuple(found.section for found in _offering())


def publishing(settings: Settings, name: str) -> PublishingPlugin:
    """Return the plug-in that fills a queue. Raise UsageError where it cannot, or where its settings lack something."""
    registry = registry_of("source")
    try:
        found = registry.find(name)
        section = own_section(settings, registry, found)
    except ConfigurationError as error:
        raise UsageError([f"--to {name}: {error}"]) from error
    if not _offers(found):
        raise UsageError([f"produce: nothing can be sent to {name}; --to {'|'.join(queues())}"])
    # A group reads, and needs no name here.
    faults = [fault for fault in section.lacking() if fault.field != "group"]
    if faults:
        raise UsageError([f"--{found.section}.{fault.field}: {fault.message}" for fault in faults])
    return PublishingPlugin(found, section)


def publisher_of(found: PublishingPlugin, *, create: bool) -> Publisher:
    """Return what fills the queue, open. Raise ConfigurationError or Unreachable."""
    made: Publisher = found.plugin.make.publisher(found.section, create=create)  # type: ignore[attr-defined]
    return made


def _offering() -> Sequence[FoundPlugin[Any]]:
    registry = registry_of("source")
    return [found for name in sorted(registry.built_in) if _offers(found := registry.find(name))]


def _offers(found: FoundPlugin[Any]) -> bool:
    return found.model is not None and callable(getattr(found.make, "publisher", None))
