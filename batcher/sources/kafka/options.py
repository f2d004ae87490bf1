"""What a Kafka source can be told, and what librdkafka is told in turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from batcher.errors import ConfigurationError, SettingRefused
from batcher.native import Choice
from batcher.sources.kafka.credentials import Reload
from batcher.sources.kafka.subscription import compiled, is_expression
from batcher.sources.starts import GivenOffsets, LogPlace

Start = LogPlace
"""Where a group without a committed offset starts; a number is a time in epoch milliseconds."""

BASELINE: Final[Mapping[str, str]] = {
    "client.id": "batcher",
    "isolation.level": "read_committed",
    # Off by default in librdkafka: a flipped bit would be loaded as data.
    "check.crcs": "true",
    "allow.auto.create.topics": "false",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": "45000",
    "max.poll.interval.ms": "300000",
    # 1000 by default: once the bounded queue is full, fetching rests a whole second (a third of the throughput).
    "fetch.queue.backoff.ms": "5",
    # One fetch may overrun the queue by what it unpacks to, so it is small: with four partitions of records that shrink
    # to a fortieth the peak of memory was 405 MB and not 530, to a six-hundredth 0.86 GB and not 1.2, and no speed was
    # lost on one machine (benchmarks/bench_memory.py, and 8 MiB and 1 MiB before).
    "queued.max.messages.kbytes": "4096",
    "fetch.max.bytes": "2097152",
    "max.partition.fetch.bytes": "262144",
    # 100 by default, as reconnecting: a commit that is retried while the connection to the coordinator comes up fails
    # and closes it again, for half a minute or more (librdkafka #3645; with 500, 12 of 12 came through in 1 to 6 s).
    "retry.backoff.ms": "500",
    # Carries the lag; one document of some 20 kB for ten partitions, not measurable at this rate.
    "statistics.interval.ms": "5000",
}
"""May be overridden with -X."""

FIXED: Final[Mapping[str, str]] = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    # `earliest` and `latest` silently jump over lost records. Starts are resolved to numbers here.
    "auto.offset.reset": "error",
    # The only sign that the end of a log was reached where its last records were compacted away. At full speed the cost
    # cannot be measured. With 200 partitions that get a record a second each it is at most 3 % of a core.
    "enable.partition.eof": "true",
}
"""May not be overridden: the promise rests on them."""

KIP_848_REFUSES: Final = frozenset({"partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"})
"""With group.protocol=consumer the broker decides these, and librdkafka refuses to be told."""

_OWNED: Final = "batcher decides it; the promise that nothing is lost rests on it"
_LOADS_CODE: Final = "it loads code into the process"
_CALLBACK: Final = "it takes a Python function"

BLOCKED: Final[Mapping[str, str]] = {
    **dict.fromkeys((*FIXED, "auto.commit.enable", "auto.commit.interval.ms", "offset.store.method"), _OWNED),
    **dict.fromkeys(("plugin.library.paths", "ssl.engine.location", "ssl.providers"), _LOADS_CODE),
    **dict.fromkeys(("on_commit", "logger", "opaque", "default.topic.config"), _CALLBACK),
    **dict.fromkeys(("bootstrap.servers", "metadata.broker.list"), "use -b"),
    "group.id": "use -g",
    "group.instance.id": "use --kafka.instance",
}
"""Properties that -X may not set, with the reason."""

TRUE: Final = frozenset({"true", "t", "1", "on"})

SECURE: Final[Mapping[str, Callable[[str], bool]]] = {
    "enable.ssl.certificate.verification": lambda value: value.lower() in TRUE,
    "ssl.endpoint.identification.algorithm": lambda value: value.lower() == "https",
}
"""What has to hold for a value unless `allow_insecure`: without it anyone in between can read and change records."""

_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")

TOPICS_REFRESH_S: Final = 10.0
"""The answer lists every topic of the cluster: some megabytes where there are ten thousand."""


@dataclass(frozen=True)
class KafkaOptions:
    """Say what to read and how. Raises ConfigurationError, naming the flag, for what cannot work.

    `topics` are names, or regular expressions of Python that begin with `^`. `start` holds where the group has no
    committed offset. `properties` go to librdkafka as they are, except for the block list. `instance` makes the
    membership static. A topic in `excluded_topics` (the dead-letter topic) may not be named, and no expression stands
    for it: reading it would be a loop. `on_gap` says what to do where committed records have expired: stop, or log how
    many are gone and go on. With `until_eof` and `patience_s` the end has come when the other members are there as
    well, or have not moved for this long. `reload` returns the properties with secrets as they are now. It is called
    when a broker refuses the present ones. `native` says whether the native extension may fetch, or has to: it changes
    the speed, never an outcome. With `end`, partitions that `start` does not name are not read.
    """

    brokers: str
    topics: tuple[str, ...]
    group: str
    start: Start = "earliest"
    properties: Mapping[str, str] = field(default_factory=dict)
    until_eof: bool = False
    on_gap: Literal["halt", "skip"] = "halt"
    allow_insecure: bool = False
    instance: str | None = None
    excluded_topics: frozenset[str] = frozenset()
    patience_s: float | None = None
    reload: Reload | None = None
    native: Choice = "auto"
    end: LogPlace | None = None

    def __post_init__(self) -> None:
        if not self.brokers.strip():
            raise ConfigurationError("no brokers: give them with -b HOST:PORT[,HOST:PORT]")
        if not self.group.strip():
            raise ConfigurationError("no consumer group: give one with -g NAME")
        self._check_start()
        self._check_topics()
        check_properties(self.properties, allow_insecure=self.allow_insecure)

    def __repr__(self) -> str:
        # Properties hold passwords; a traceback must not.
        return f"KafkaOptions(brokers={self.brokers!r}, topics={self.topics!r}, group={self.group!r})"

    @property
    def session_timeout_s(self) -> float:
        """Return after how long without a sign of life the group gives a member up, as far as this is our choice."""
        stated = self._merged.get("session.timeout.ms", BASELINE["session.timeout.ms"])
        return int(stated) / 1000 if stated.isdecimal() else int(BASELINE["session.timeout.ms"]) / 1000

    @property
    def has_expressions(self) -> bool:
        """Return whether topics may come and go while reading."""
        return any(map(is_expression, self.topics))

    @property
    def read_committed(self) -> bool:
        """Return whether records of open transactions are not read."""
        return self._merged["isolation.level"].strip().lower() == "read_committed"

    @property
    def topics_refresh_s(self) -> float:
        """Return how often topics that expressions stand for are looked for."""
        stated = self.properties.get("topic.metadata.refresh.interval.ms", "")
        return int(stated) / 1000 if stated.isdecimal() and int(stated) > 0 else TOPICS_REFRESH_S

    @property
    def cooperative(self) -> bool:
        """Return whether partitions come and go one by one instead of all at once."""
        return self._next_generation or self._merged["partition.assignment.strategy"].strip() == "cooperative-sticky"

    @property
    def leaves_unowned(self) -> bool:
        """Return whether a restart of this member may leave partitions to nobody, see `unowned.py`."""
        return self.instance is not None and self.cooperative and not self._next_generation

    def librdkafka(self) -> dict[str, str]:
        """Return the properties for the consumer, without callbacks."""
        settings = {
            **self._merged,
            **FIXED,
            "bootstrap.servers": self.brokers,
            "group.id": self.group,
        }
        if self.instance is not None:
            settings["group.instance.id"] = self.instance
        return settings

    def excluded(self, topic: str) -> bool:
        """Return whether a topic may not be read."""
        return topic in self.excluded_topics

    @property
    def _next_generation(self) -> bool:
        return _next_generation(self.properties)

    @property
    def _merged(self) -> dict[str, str]:
        left_out = KIP_848_REFUSES if self._next_generation else frozenset()
        usual = {key: value for key, value in BASELINE.items() if key not in left_out}
        if "fetch.message.max.bytes" in self.properties:  # the other name of the same
            del usual["max.partition.fetch.bytes"]
        # librdkafka refuses a fetch that is smaller than a message may be. The share of a partition may be smaller: a
        # broker sends the first batch whole.
        message = self.properties.get("message.max.bytes", "")
        if message.isdecimal() and int(message) > int(usual["fetch.max.bytes"]):
            usual["fetch.max.bytes"] = message
        return {**usual, **self.properties}

    def _check_start(self) -> None:
        if isinstance(self.start, bool) or not (
            self.start in ("earliest", "latest")
            or isinstance(self.start, GivenOffsets)
            or (isinstance(self.start, int) and self.start >= 0)
        ):
            raise ConfigurationError(f"--kafka.start {self.start}: expected earliest, latest or a time")

    def _check_topics(self) -> None:
        if not self.topics:
            raise ConfigurationError("no topic: give one with -t NAME or -t '^REGEX'")
        for topic in self.topics:
            if is_expression(topic):
                compiled(topic)
            elif not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
                raise ConfigurationError(f"-t {topic!r} is no topic name: letters, digits, '.', '_' and '-', up to 249")
            elif self.excluded(topic):
                raise ConfigurationError(
                    f"the dead-letter topic {topic} is inside the subscription -t {topic}: change --dlq.topic"
                )


def check_properties(properties: Mapping[str, str], *, allow_insecure: bool = False) -> None:
    """Raise SettingRefused, naming the flag, for the first property that no client of ours may be given."""
    for name, value in properties.items():
        reason = BLOCKED.get(name)
        if name.endswith("_cb"):
            reason = _CALLBACK
        elif name.startswith("test."):
            reason = "it replaces the cluster by a simulated one"
        elif _next_generation(properties) and name in KIP_848_REFUSES:
            reason = "with group.protocol=consumer the broker decides it"
        elif name in SECURE and not SECURE[name](value) and not allow_insecure:
            reason = "it lets anybody in between read and change records; --kafka.allow-insecure permits it"
        if reason is not None:
            raise SettingRefused(f"-X {name} is refused: {reason}")


def _next_generation(properties: Mapping[str, str]) -> bool:
    return properties.get("group.protocol", "classic").lower() == "consumer"
