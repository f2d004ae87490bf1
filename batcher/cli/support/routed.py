"""Find the targets of `--route` for the verbs that look at one target after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from batcher.settings import Settings, UsageError, routed, routes, section_of

if TYPE_CHECKING:
    from batcher.engine.routes import Routes


def one_target(settings: Settings, topics: Sequence[str] = ()) -> Settings:
    """Return the settings of the one target that topics lead to, those of the settings where none are given.

    Raise UsageError where there is not one.
    """
    rules = _rules(settings)
    if rules is None:
        return settings
    topics = topics or _named_topics(settings) or _of_queue(settings)
    if not topics or any(topic.startswith("^") for topic in topics):
        raise UsageError(["--route: name the topics of one target with -t"])
    found = _by_target(rules, topics)
    if len(found) > 1:
        raise UsageError(
            [f"--route: the topics lead to {len(found)} targets ({', '.join(found)}); name those of one with -t"]
        )
    return routed(settings, *next(iter(found.items())))


def all_targets(settings: Settings) -> Sequence[Settings]:
    """Return the settings of each target that the topics lead to; asks the brokers where expressions name topics.

    Raise UsageError for a topic without a route, ConfigurationError or Unreachable where the brokers are asked.
    """
    rules = _rules(settings)
    if rules is None:
        return [settings]
    topics = _named_topics(settings)
    if not topics or any(topic.startswith("^") for topic in topics):
        topics = _existing_topics(settings)
    return [routed(settings, name, mine) for name, mine in _by_target(rules, topics).items()]


def _rules(settings: Settings) -> Routes | None:
    # The library of columns is behind it.
    if not routes(settings):
        return None
    from batcher.cli.support.wiring import routes_of

    return routes_of(settings)


def _named_topics(settings: Settings) -> Sequence[str]:
    section = section_of(settings, "source")[1]
    return tuple(getattr(section, "topics", ()))


def _of_queue(settings: Settings) -> Sequence[str]:
    """Return the topics of a source that names none because it has only one."""
    section = section_of(settings, "source")[1]
    return () if hasattr(section, "topics") else _existing_topics(settings)


def _existing_topics(settings: Settings) -> Sequence[str]:
    from batcher.cli.support.wiring import reader_of

    reader = reader_of(settings)
    try:
        return sorted({partition.topic for partition in reader.open()})
    finally:
        reader.close()


def _by_target(rules: Routes, topics: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for topic in topics:
        name = rules.target_of(topic)
        if name is None:
            raise UsageError([f"--route: none is for topic {topic}"])
        found.setdefault(name, []).append(topic)
    return dict(sorted(found.items()))
