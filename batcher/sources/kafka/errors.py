"""What librdkafka's error codes mean to a source. Codes are data, grouped by what is done about them."""

# ruff: noqa: SLF001 (librdkafka's own codes begin with an underscore and are public)

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from batcher.errors import ConfigurationError, SourceLost

PARTITION_EOF: Final = KafkaError._PARTITION_EOF
MAX_POLL_EXCEEDED: Final = KafkaError._MAX_POLL_EXCEEDED

FATAL: Final = frozenset({KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID})
"""librdkafka has given up the client. The instance codes mean that two processes share one static membership."""

COMMIT_RETRIED: Final = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError._WAIT_COORD,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._IN_PROGRESS,
        KafkaError._PREV_IN_PROGRESS,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
    }
)
"""The outcome is unknown or the moment is wrong: the same commit again. `KafkaError.retriable()` is False for all."""

COMMIT_REBALANCING: Final = frozenset({KafkaError.REBALANCE_IN_PROGRESS})
"""The other members have joined and wait for their shares: the same commit again, which librdkafka's own thread brings
about. Inside a callback it may be the group that waits for us."""

COMMIT_OUTRUN: Final = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.STALE_MEMBER_EPOCH})
"""A rebalance overtook the commit on its way: librdkafka learns the new generation a moment later, and the partition
may still be ours. Without a rebalance these mean what COMMIT_FENCED means."""

COMMIT_FENCED: Final = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError._STATE,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
    }
)
"""The partition has another owner by now, or is gone."""

FORBIDDEN: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
    }
)
"""Rights or credentials: no retry helps."""

AUTHENTICATION: Final = frozenset({KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION})
"""The broker refuses name and password: new ones may have replaced them since they were read."""

AWAY: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})
"""A connection broke, or none can be made. Afterwards there may be another cluster, or other topics."""

DOWN: Final = frozenset({KafkaError._ALL_BROKERS_DOWN})

UNASKABLE: Final = frozenset({KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE})
"""The broker is too old for the question."""

COMMIT_NEVER: Final = FORBIDDEN | {
    KafkaError.OFFSET_METADATA_TOO_LARGE,
    KafkaError.INVALID_COMMIT_OFFSET_SIZE,
    KafkaError.INVALID_GROUP_ID,
    KafkaError._INVALID_ARG,
}
"""This commit can never be accepted."""

STUCK: Final = frozenset(
    {
        KafkaError._BAD_COMPRESSION,
        KafkaError._BAD_MSG,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError._PARTIAL,
        KafkaError._UNDERFLOW,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)
"""A record that cannot be read: librdkafka tries the same record for ever, about twice a second."""

GONE: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""The topic is no longer there; librdkafka reports that once and then nothing, even when it is created again."""

GROUP_UNKNOWN: Final = frozenset({KafkaError.GROUP_ID_NOT_FOUND})
"""A group that does not exist has no members."""

OUT_OF_RANGE: Final = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
)
"""The next record to read is not in the log."""


def error_of(exception: KafkaException) -> KafkaError:
    """Return the KafkaError inside an exception of confluent-kafka."""
    return exception.args[0] if isinstance(exception.args[0], KafkaError) else KafkaError(KafkaError._FAIL)


def text_of(error: KafkaError) -> str:
    """Return what went wrong as one line for people."""
    return f"{' '.join(error.str().split())} ({error.name()})"


def refused(error: KafkaError) -> bool:
    """Return whether a broker turns this client away: for its rights, its credentials or its certificate."""
    # A broker that wants a certificate says so after the handshake, and librdkafka takes it for a broken connection.
    return error.code() in FORBIDDEN or (error.code() == KafkaError._TRANSPORT and "tls alert" in error.str())


def forbidden(error: KafkaError, what: str) -> ConfigurationError:
    """Return the error for missing rights or wrong credentials."""
    if error.code() in {KafkaError._SSL, KafkaError._TRANSPORT}:
        check = "check -X ssl.*, and the broker's certificate: its authority, host name and dates"
    else:
        check = "check the credentials (-X sasl.*, -X ssl.*) and the ACLs"
    return ConfigurationError(f"{what}: {text_of(error)}; {check}")


class ClientDead(SourceLost):
    """Report that librdkafka has given up its client: it neither reads nor commits any more, and cannot be closed."""


def fatal(error: KafkaError, instance: str | None) -> ClientDead:
    """Return the error for a client that librdkafka has given up."""
    # _FATAL hides the code that caused it. Only the text still has it.
    if error.code() in FATAL - {KafkaError._FATAL} or "instance" in error.str().lower():
        return ClientDead(
            f"--kafka.instance {instance} is also that of another process, or of one that died less than a session "
            "timeout ago: give each process its own"
        )
    return ClientDead(f"the Kafka client cannot go on: {text_of(error)}; start again")
