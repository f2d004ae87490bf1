import pytest

from batcher.errors import ConfigurationError
from batcher.sources.kafka.options import BLOCKED, KIP_848_REFUSES, KafkaOptions


def options(**changes: object) -> KafkaOptions:
    return KafkaOptions(**{"brokers": "b:9092", "topics": ("events",), "group": "g", **changes})  # type: ignore[arg-type]


def test_offsets_are_never_reset_or_committed_behind_our_back() -> None:
    settings = options().librdkafka()

    assert settings["auto.offset.reset"] == "error"
    assert settings["enable.auto.commit"] == settings["enable.auto.offset.store"] == "false"
    assert settings["allow.auto.create.topics"] == "false"


@pytest.mark.parametrize(
    "name", [*BLOCKED, "stats_cb", "error_cb", "test.mock.num.brokers", "ssl.certificate.verify_cb"]
)
def test_a_property_that_would_break_the_promise_is_refused_by_name_with_a_reason(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"-X {name} is refused: \w+"):
        options(properties={name: "secret-value"})


@pytest.mark.parametrize(
    ("name", "weak", "strong"),
    [
        ("enable.ssl.certificate.verification", "False", "true"),
        ("enable.ssl.certificate.verification", "0", "1"),
        ("ssl.endpoint.identification.algorithm", "none", "https"),
    ],
)
def test_a_connection_anybody_can_read_needs_to_be_asked_for(name: str, weak: str, strong: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        options(properties={name: weak})

    assert options(properties={name: weak}, allow_insecure=True).librdkafka()[name] == weak
    assert options(properties={name: strong}).librdkafka()[name] == strong


def test_properties_override_the_baseline() -> None:
    settings = options(properties={"session.timeout.ms": "6000", "security.protocol": "ssl"}).librdkafka()

    assert settings["session.timeout.ms"] == "6000"
    assert settings["security.protocol"] == "ssl"


def test_with_kip_848_what_the_broker_decides_is_not_sent() -> None:
    chosen = options(properties={"group.protocol": "consumer"})

    assert not KIP_848_REFUSES & chosen.librdkafka().keys()
    assert chosen.cooperative
    with pytest.raises(ConfigurationError, match=r"-X session\.timeout\.ms"):
        options(properties={"group.protocol": "consumer", "session.timeout.ms": "6000"})


@pytest.mark.parametrize(
    ("strategy", "cooperative"), [("cooperative-sticky", True), ("range", False), ("range,roundrobin", False)]
)
def test_the_way_partitions_come_and_go_follows_the_strategy(strategy: str, cooperative: bool) -> None:
    assert options(properties={"partition.assignment.strategy": strategy}).cooperative is cooperative


def test_no_more_than_8_mib_is_fetched_ahead_and_2_at_a_time_unless_told_to() -> None:
    assert options().librdkafka()["queued.max.messages.kbytes"] == "4096"
    assert options().librdkafka()["fetch.max.bytes"] == str(2 << 20)
    assert options().librdkafka()["max.partition.fetch.bytes"] == str(256 << 10)
    assert options(properties={"fetch.max.bytes": "9"}).librdkafka()["fetch.max.bytes"] == "9"


def test_the_share_of_a_partition_may_be_given_by_either_of_its_names() -> None:
    found = options(properties={"fetch.message.max.bytes": "5"}).librdkafka()
    assert (found["fetch.message.max.bytes"], "max.partition.fetch.bytes" in found) == ("5", False)


@pytest.mark.parametrize(("message", "fetch"), [("1000", 2 << 20), ("20000000", 20_000_000), ("many", 2 << 20)])
def test_a_fetch_is_never_smaller_than_the_messages_that_are_asked_for(message: str, fetch: int) -> None:
    found = options(properties={"message.max.bytes": message}).librdkafka()
    assert found["fetch.max.bytes"] == str(fetch)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"brokers": " "}, "-b"),
        ({"topics": ()}, "-t"),
        ({"topics": ("sp ace",)}, "-t 'sp ace'"),
        ({"topics": ("..",)}, "-t '..'"),
        ({"topics": ("^(",)}, "-t '\\^\\('"),
        ({"group": ""}, "-g"),
        ({"start": "oldest"}, "--kafka.start oldest"),
        ({"start": -1}, "--kafka.start -1"),
        ({"start": True}, "--kafka.start True"),
    ],
)
def test_a_setting_that_cannot_work_names_its_flag(changes: dict[str, object], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        options(**changes)


def test_the_dead_letter_topic_inside_the_subscription_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="letters"):
        options(topics=("events", "letters"), excluded_topics=frozenset({"letters"}))


@pytest.mark.parametrize("topics", [("^.*",), ("^let",)])
def test_an_expression_may_catch_the_dead_letter_topic_for_it_does_not_stand_for_it(topics: tuple[str, ...]) -> None:
    assert options(topics=topics, excluded_topics=frozenset({"letters"})).excluded("letters")


def test_a_dead_letter_topic_beside_the_subscription_is_fine() -> None:
    assert options(topics=("^events",), excluded_topics=frozenset({"letters-of-events"})).excluded("letters-of-events")


def test_properties_are_not_shown() -> None:
    assert "hunter2" not in repr(options(properties={"sasl.password": "hunter2"}))
