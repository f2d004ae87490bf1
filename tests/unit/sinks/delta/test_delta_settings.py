"""What choosing a Delta table means for the other settings."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batcher.cli.verbs.run import parser
from batcher.engine.assembly import PipelineOptions, agreed
from batcher.errors import ConfigurationError
from batcher.protocols import SinkInfo, SourceInfo
from batcher.settings import Settings, UsageError, load
from sinks.lake.sink import CAPABILITIES

FLAGS = ("--sink", "delta", "--delta.path", "t", "-b", "localhost:9092", "-t", "events", "-g", "g")


def settings_of(*flags: str) -> Settings:
    return load(parser(), [*FLAGS, *flags]).settings


def test_few_commits_over_all_partitions_are_the_default_and_can_be_changed() -> None:
    found = settings_of().batch
    assert (found.merge_partitions, found.max_wait) == (True, timedelta(seconds=10))
    assert settings_of("--batch.max-wait", "1s").batch.max_wait == timedelta(seconds=1)


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [("--delta.lake-id", "a|b", "plain name"), ("--delta.coordinates", "offset", "none of default")],
)
def test_a_value_that_cannot_be_meant_is_named_with_its_flag(flag: str, value: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"{flag}.*{said}"):
        settings_of(flag, value)


def test_a_target_that_stores_nothing_twice_cannot_be_told_to() -> None:
    info = SinkInfo("t", None, ("_topic", "_partition", "_offset"), "query", "", CAPABILITIES, once=True)
    source = SourceInfo(keeps_intents=True)
    options = PipelineOptions(name="g", on_existing="write")
    with pytest.raises(ConfigurationError, match="stores no record a second time"):
        agreed(source, info, options)
