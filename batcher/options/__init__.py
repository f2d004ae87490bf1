"""What it takes to describe the options of a plug-in. Light: `--help` loads it, and sinks may.

class MyOptions(Section):
    url: Annotated[str, Flag(metavar="URL")]
    \"\"\"Where to.\"\"\"
    token: SecretStr | None = None
    \"\"\"The access token.\"\"\"
    patience: Duration = timedelta(seconds=5)
    \"\"\"How long to wait.\"\"\"
"""

from pydantic import SecretStr

from batcher.options.masking import masked_url, masked_value, secrets
from batcher.options.section import Advice, Fault, Flag, Section, password_faults
from batcher.options.units import (
    Duration,
    Names,
    OptionalDuration,
    Pairs,
    Rules,
    Size,
    WorkerCount,
    Workers,
    show_duration,
    show_size,
)

__all__ = [
    "Advice",
    "Duration",
    "Fault",
    "Flag",
    "Names",
    "OptionalDuration",
    "Pairs",
    "Rules",
    "SecretStr",
    "Section",
    "Size",
    "WorkerCount",
    "Workers",
    "masked_url",
    "masked_value",
    "password_faults",
    "secrets",
    "show_duration",
    "show_size",
]
