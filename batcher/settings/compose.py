"""Make the class of settings that has the sections of the plug-ins at hand."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import Field, create_model

from batcher.errors import ConfigurationError
from batcher.options import Section
from batcher.plugins import FoundPlugin, Registry, registries, registry_of
from batcher.settings.model import Settings

_BEFORE: Final = {
    "source": "batch",
    "sink": "decode",
    "decode.format": "transform",
    "transform.kind": "dlq",
    "dlq.queue": "retry",
}
"""For each kind of plug-in, by the setting that names one: the section of ours that comes after its sections."""


@cache
def compose(named: tuple[tuple[str, str], ...]) -> type[Settings]:
    """Return settings with the sections of the built-in plug-ins and of those named, by the setting that names each.

    Raise ConfigurationError for a plug-in that is not there or describes its options wrongly, never UsageError.
    """
    order, owners = list(Settings.model_fields), {}
    models: dict[str, type[Section]] = {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }
    added: dict[str, Any] = {}
    for registry in registries():
        chosen = [name for setting, name in named if setting == registry.setting]
        for name in [*registry.built_in, *chosen]:
            found = registry.find(name)
            if found.model is None or models.get(found.section) is found.model:
                continue
            _require_free(registry, found, order)
            models[found.section] = found.model
            order.insert(order.index(_BEFORE[registry.setting]), found.section)
            owners[found.section] = registry.setting
            added[found.section] = (found.model, Field(default_factory=found.model, description=told(found.model)))
    made = create_model("Settings", __base__=Settings, __module__=__name__, **added)
    made.owners = owners
    # Pydantic puts what a subclass adds last. Flags, tables and `config show` follow this order.
    made.__pydantic_fields__ = {name: made.model_fields[name] for name in order}
    return made


def told(model: type[Section]) -> str:
    """Return what a section is for: the first paragraph of its model's docstring."""
    return " ".join((model.__doc__ or "").partition("\n\n")[0].split())


def chosen(settings: Settings, registry: Registry[Any]) -> str | None:
    """Return the name of the plug-in of a kind that the settings choose."""
    value: Any = settings
    for name in registry.setting.split("."):
        value = getattr(value, name)
    return None if value is None else str(value)


def section_of(settings: Settings, kind: str) -> tuple[str, Section | None]:
    """Return the section of the plug-in of a kind that the settings choose, with its name; None where it has none.

    None also for a plug-in that is not there: making it reports that.
    """
    registry = registry_of(kind)
    name = chosen(settings, registry)
    try:
        found = None if name is None else registry.find(name)
    except ConfigurationError:
        found = None
    if found is None or found.model is None:
        return "", None
    section = getattr(settings, found.section, None)
    return (found.section, section) if isinstance(section, found.model) else ("", None)


def own_section(settings: Settings, registry: Registry[Any], found: FoundPlugin[Any]) -> Section:
    """Return the section of a plug-in. Raise ConfigurationError where the settings have another one of its name."""
    section = getattr(settings, found.section, None)
    if found.model is None or not isinstance(section, found.model):
        raise ConfigurationError(_taken(registry, found))
    return section


def _require_free(registry: Registry[Any], found: FoundPlugin[Any], taken: list[str]) -> None:
    """Raise ConfigurationError where the names of flags or variables of a section would be those of another."""
    # BATCHER_MAX_RECORDS would be `records` of a section `max`.
    if found.section in {*taken, *(name.partition("_")[0] for name in taken)}:
        raise ConfigurationError(_taken(registry, found))


def _taken(registry: Registry[Any], found: FoundPlugin[Any]) -> str:
    return (
        f"{registry.flag} {found.name!r}: the name {found.section!r} of its section is taken; "
        "give the plug-in another one with an attribute section"
    )
