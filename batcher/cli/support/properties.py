"""`-X list` and `-X dump`: which properties batcher sets itself, which it refuses, and what librdkafka gets."""

from __future__ import annotations

from batcher.settings import Settings, masked_value

REFERENCE = "https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md"


def show(question: str, settings: Settings) -> int:
    """Print the answer to `-X list` or `-X dump` and return the exit code."""
    for line in _dump(settings) if question == "dump" else _list():
        print(line)
    return 0


def _list() -> list[str]:
    from batcher.sources.kafka.options import BASELINE, BLOCKED, FIXED

    width = max(map(len, [*BASELINE, *FIXED, *BLOCKED]))
    return [
        "Set by batcher; -X overrides them:",
        *(f"  {name:<{width}} = {value}" for name, value in sorted(BASELINE.items())),
        "",
        "Set by batcher for good:",
        *(f"  {name:<{width}} = {value}" for name, value in sorted(FIXED.items())),
        "",
        "Refused:",
        *(f"  {name:<{width}} : {why}" for name, why in sorted(BLOCKED.items()) if name not in FIXED),
        "",
        f"All properties (those for consumers, C, and for both, *): {REFERENCE}",
    ]


def _dump(settings: Settings) -> list[str]:
    from batcher.cli.support.wiring import kafka_options_of

    properties = kafka_options_of(settings).librdkafka()
    return [f"{name} = {masked_value(name, value)}" for name, value in sorted(properties.items())]
