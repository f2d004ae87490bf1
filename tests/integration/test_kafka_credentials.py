"""TLS, client certificates, SASL, and secrets that change while a source runs: on Apache Kafka."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from batcher.embedded.jars import Unavailable
from batcher.records import Partition
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.listener import RecordingListener, numbered, read, values
from tests.harness.processes import Ending, run
from tests.harness.secured_broker import PLAIN_PASSWORD, USER, Certificates, SecuredBroker

pytestmark = pytest.mark.broker

SCRAM_PASSWORD: Final = "scram-word"

WAYS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "tls": ("tls", {"security.protocol": "ssl"}),
    "client-certificate": ("mutual", {"security.protocol": "ssl", "ssl.certificate.location": "client.pem"}),
    "scram": ("sasl", {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": USER, "sasl.password": SCRAM_PASSWORD}),
    "plain": ("sasl", {"sasl.mechanism": "PLAIN", "sasl.username": USER, "sasl.password": PLAIN_PASSWORD}),
    "oauth": (
        "sasl",
        {
            "sasl.mechanism": "OAUTHBEARER",
            "enable.sasl.oauthbearer.unsecure.jwt": "true",
            "sasl.oauthbearer.config": f"principal={USER}",
        },
    ),
}
"""The listener and what a client needs for it, besides the file of the authority."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.give("client", USER)
    return made


@pytest.fixture(scope="module")
def secured(certificates: Certificates) -> Iterator[SecuredBroker]:
    running = SecuredBroker(certificates)
    try:
        running.start()
    except Unavailable as error:
        pytest.skip(f"no Kafka broker: {error}")
    with running:
        running.set_password(SCRAM_PASSWORD)
        yield running


def properties_of(way: str, certificates: Certificates) -> dict[str, str]:
    """Return the properties of librdkafka for one of the ways in."""
    found = {"security.protocol": "sasl_ssl", "ssl.ca.location": str(certificates.authority), **WAYS[way][1]}
    if "ssl.certificate.location" in found:
        client = str(certificates.authority.with_name(found["ssl.certificate.location"]))
        found |= {"ssl.certificate.location": client, "ssl.key.location": client}
    return found


def flags_of(properties: Mapping[str, str]) -> list[str]:
    return [part for name, value in properties.items() for part in ("-X", f"{name}={value}")]


def load(broker: str, topic: str, root: Path, *flags: str) -> Ending:
    """Load a topic into Parquet, with its dead letters in the topic beside it."""
    common = ["-b", broker, "-t", topic, "-g", topic, "--sink", "parquet", "--parquet.path", str(root)]
    return run(*common, "--dlq.topic", f"{topic}.dlq", "--until-eof", "--start-timeout", "2s", "--json", *flags)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_loads_a_topic_and_stores_its_dead_letters(
    way: str, secured: SecuredBroker, certificates: Certificates, tmp_path: Path
) -> None:
    topic, address = f"events-{way}", secured.at(WAYS[way][0])
    secured.create_topic(topic)
    secured.create_topic(f"{topic}.dlq")
    # Secrets come from a file, as in production.
    secrets = tmp_path / "secrets"
    secrets.write_text("".join(f"{name}={value}\n" for name, value in properties_of(way, certificates).items()))
    environment = {"BATCHER_KAFKA_OPTIONS_FILE": str(secrets)}
    lines = "".join(f'{{"id": {number}}}\n' for number in range(50)) + "no json\n"
    sent = run("produce", "-b", address, "-t", topic, "--from", "-", stdin=lines, environment=environment)
    assert sent.code == 0, sent.stderr

    argv = ["-b", address, "-t", topic, "-g", "loaders", "--sink", "parquet", "--parquet.path", str(tmp_path / "root")]
    argv += ["--dlq.topic", f"{topic}.dlq"]
    done = run(*argv, "--until-eof", "--json", environment=environment)
    assert done.code == 0, done.stderr
    assert sorted(pq.read_table(tmp_path / "root")["id"].to_pylist()) == list(range(50))
    assert len(secured.records(f"{topic}.dlq")) == 1
    checked = run("verify", *argv, "--json", environment=environment)
    assert checked.code == 0, checked.stderr + checked.stdout


MISTAKES: Final[Mapping[str, tuple[str, str, Mapping[str, str | None], int, str]]] = {
    "no certificate of the authority": ("tls", "tls", {"ssl.ca.location": None}, 78, r"certificate|ssl"),
    "a host of another name": ("elsewhere", "tls", {}, 78, r"hostname|host name|certificate"),
    "a certificate that has expired": ("stale", "tls", {}, 78, r"certificate|expired"),
    "no client certificate": ("mutual", "tls", {}, 78, r"certificate"),
    "plain text where TLS is spoken": ("tls", "tls", {"security.protocol": "plaintext"}, 69, r"security\.protocol"),
    "a wrong password": ("sasl", "scram", {"sasl.password": "other-word"}, 78, r"SASL|authentication"),
    "a mechanism that the broker has not": ("sasl", "plain", {"sasl.mechanism": "SCRAM-SHA-256"}, 78, r"mechanism"),
}
"""The listener, the way in, what is wrong with it, the exit code, and a word of what is said."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_the_broker_or_its_certificate_lacks(
    mistake: str, secured: SecuredBroker, certificates: Certificates, tmp_path: Path
) -> None:
    listener, way, wrong, code, word = MISTAKES[mistake]
    properties = properties_of(way, certificates) | {name: value or "" for name, value in wrong.items()}
    flags = flags_of({name: value for name, value in properties.items() if value})
    done = load(secured.at(listener), "events-mistake", tmp_path, *flags)
    assert done.code == code, done.stderr
    [said] = [
        line["reason"] for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "pipeline_failed"
    ]
    assert re.search(word, said, re.IGNORECASE), said
    assert "other-word" not in done.stderr + done.stdout


def test_a_certificate_of_the_broker_may_change_while_a_source_runs(
    secured: SecuredBroker, certificates: Certificates
) -> None:
    topic = "events-renewed"
    secured.create_topic(topic)
    secured.produce(topic, numbered(0, 3))
    source = KafkaSource(
        KafkaOptions(secured.at("tls"), (topic,), topic, properties=properties_of("tls", certificates))
    )
    source.open(RecordingListener())
    try:
        runs = read(source, 3)
        secured.renew("tls")
        secured.shut_down()
        secured.start()
        secured.produce(topic, numbered(3, 3))
        runs += read(source, 3, 60.0)
    finally:
        source.close()
    assert values(runs) == {Partition(topic, 0): numbered(0, 6)}


def test_a_rotated_password_is_read_again_once_the_broker_refuses_the_old_one(
    secured: SecuredBroker, certificates: Certificates
) -> None:
    topic, address = "events-rotated", secured.at("sasl")
    secured.create_topic(topic)
    secured.produce(topic, numbered(0, 3))
    first = properties_of("scram", certificates)
    kept = first
    source = KafkaSource(KafkaOptions(address, (topic,), topic, properties=dict(first), reload=lambda: kept))
    source.open(RecordingListener())
    try:
        runs = read(source, 3)
        secured.set_password("second-word")
        kept = {**first, "sasl.password": "second-word"}
        # Connections that stand are not asked again; those after a restart are.
        secured.shut_down()
        secured.start()
        secured.produce(topic, numbered(3, 3))
        with capture_logs() as lines:
            runs += read(source, 3, 60.0)
    finally:
        source.close()
        secured.set_password(SCRAM_PASSWORD)

    assert values(runs) == {Partition(topic, 0): numbered(0, 6)}
    assert "credentials_read_again" in {line["event"] for line in lines}
    assert "second-word" not in str(lines)
