"""Read the routes of the settings, and make the settings of one target from those of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from batcher.options.units import parse_rule
from batcher.settings.compose import section_of
from batcher.settings.model import Settings

TOPIC: Final = "{topic}"
"""What a target's name may have for the name of the topic."""

ANY_TOPIC: Final = ".*"


def routes(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return the rules, each an expression for topics and the name of their target; none where there is one target.

    The table or directory itself with `{topic}` in its name is such a rule, for all topics.
    """
    if settings.route:
        return tuple(parse_rule(rule) for rule in settings.route)
    named = _named(settings)
    return ((ANY_TOPIC, named),) if TOPIC in named else ()


def routed(settings: Settings, target: str, topics: Sequence[str]) -> Settings:
    """Return the settings of a pipeline that loads these topics, and only them, into one target."""
    changes: dict[str, object] = {"route": ()}
    name, section = section_of(settings, "sink")
    if section is not None and section.routed:
        changes[name] = section.model_copy(update={section.routed: target})
    name, section = section_of(settings, "source")
    if section is not None and "topics" in type(section).model_fields:
        changes[name] = section.model_copy(update={"topics": tuple(topics)})
    return settings.model_copy(update=changes)


def routing_faults(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path of what is wrong with the routes, and what it is."""
    if not settings.route:
        return
    for rule in settings.route:
        try:
            parse_rule(rule)
        except ValueError as error:
            yield ("route",), str(error)
    if settings.sink is None:
        return
    name, section = section_of(settings, "sink")
    if section is None or not section.routed:
        yield ("route",), f"the sink {settings.sink} has one target only"
    elif _named(settings):
        yield (name, section.routed), f"cannot go with --route, which names it: --route '(.*)={_named(settings)}'"


def _named(settings: Settings) -> str:
    section = section_of(settings, "sink")[1]
    return str((getattr(section, section.routed) if section is not None and section.routed else "") or "")
