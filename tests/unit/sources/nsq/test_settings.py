"""Names and addresses are looked at before anything is connected to."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext
from batcher.sources.nsq import plugin
from batcher.sources.nsq.settings import Nsq, address_of


@pytest.mark.parametrize("name", ["orders", "a.b-c_d", "x" * 64, "tail#ephemeral"])
def test_names_that_nsqd_takes_are_taken(name: str) -> None:
    assert list(Nsq(topic=name, channel=name).impossible()) == []


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "tail#other", "#ephemeral", "straße", "a\nSUB b"])
def test_names_that_nsqd_refuses_are_refused_with_their_field(name: str) -> None:
    assert [one.field for one in Nsq(topic=name).impossible()] == ["topic"]
    assert [one.field for one in Nsq(channel=name).impossible()] == ["channel"]


def test_addresses_have_a_port_of_their_own_or_the_usual_one() -> None:
    assert address_of("nsq1", 4150) == ("nsq1", 4150)
    assert address_of("nsq1:5", 4150) == ("nsq1", 5)
    assert address_of("[::1]:4160", 4150) == ("::1", 4160)
    for text in ("nsq1:", "nsq1:0", "nsq1:70000", "http://nsq1:4150", "user@nsq1", "::1", ""):
        with pytest.raises(ValueError, match="HOST:PORT"):
            address_of(text, 4150)
    assert [one.field for one in Nsq(nsqd=("a:b",), lookupd=("c:d",)).impossible()] == ["nsqd", "lookupd"]


def test_what_is_lacking_is_asked_for_one_by_one() -> None:
    assert [one.field for one in Nsq().lacking()] == ["topic", "nsqd"]
    assert list(Nsq(topic="t", lookupd=("x",)).lacking()) == []


def test_who_reads_needs_a_channel_and_who_publishes_does_not() -> None:
    with pytest.raises(ConfigurationError, match=r"which channel\? --nsq\.channel"):
        plugin(Nsq(topic="t", nsqd=("x",)), PluginContext())


def test_a_timeout_that_nsqd_does_not_take_is_refused() -> None:
    with pytest.raises(ValidationError):
        Nsq(msg_timeout=timedelta(milliseconds=999))
