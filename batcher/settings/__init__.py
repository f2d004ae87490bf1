"""The settings of a pipeline: one model, read from flags, environment, secret files and a TOML file."""

from batcher.options import masked_url, masked_value, secrets, show_duration
from batcher.settings.compose import own_section, section_of
from batcher.settings.errors import UsageError
from batcher.settings.flags import Parser, suggestion
from batcher.settings.load import Loaded, add_config_flag, load
from batcher.settings.model import Settings
from batcher.settings.reference import ENV_PREFIX, Row, reference
from batcher.settings.routing import routed, routes


def masked(settings: Settings) -> dict[str, object]:
    """Return the settings as nested mappings that may be shown: secrets as `***`."""
    shown = masked_value("", settings)
    assert isinstance(shown, dict)
    return shown


__all__ = [
    "ENV_PREFIX",
    "Loaded",
    "Parser",
    "Row",
    "Settings",
    "UsageError",
    "add_config_flag",
    "load",
    "masked",
    "masked_url",
    "masked_value",
    "own_section",
    "reference",
    "routed",
    "routes",
    "secrets",
    "section_of",
    "show_duration",
    "suggestion",
]
