"""librdkafka's own broker, inside this process, with faults to inject.

The wheel of confluent-kafka bundles librdkafka as a shared library that exports `rd_kafka_mock_*`. They are called
through ctypes, because the Python package has no such calls. Other processes may connect.

Mind: it keeps about 5 MB for each partition and silently drops what is older. It has no admin API, no times of records
(`offsets_for_times` answers -1) and no control records. A second member of a classic group waits about 40 s for its
partitions, one of a KIP-848 group 3 s. The calls are experimental in librdkafka.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import confluent_kafka

from batcher.embedded.jars import Unavailable
from batcher.records import Partition

PRODUCER: Final = 0
"""RD_KAFKA_PRODUCER: the mock cluster hangs on a client handle, of either kind."""

DISCONNECT: Final = -195
"""Pushed as an error code: the broker closes the connection instead of answering."""

RETENTION_BYTES: Final = 5 << 20
"""What the mock keeps for each partition (`max_size` in rdkafka_mock.c)."""

_POINTER = ctypes.c_void_p
_TEXT = ctypes.c_char_p
_INT16 = ctypes.c_int16
_INT32 = ctypes.c_int32
_INT64 = ctypes.c_int64

_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "rd_kafka_conf_new": (_POINTER,),
    "rd_kafka_conf_set": (ctypes.c_int, _POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t),
    "rd_kafka_new": (_POINTER, ctypes.c_int, _POINTER, _TEXT, ctypes.c_size_t),
    "rd_kafka_destroy": (None, _POINTER),
    "rd_kafka_mock_cluster_new": (_POINTER, _POINTER, ctypes.c_int),
    "rd_kafka_mock_cluster_destroy": (None, _POINTER),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, _POINTER),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, _POINTER, _INT32),
    "rd_kafka_mock_topic_create": (ctypes.c_int, _POINTER, _TEXT, ctypes.c_int, ctypes.c_int),
    "rd_kafka_mock_topic_delete": (ctypes.c_int, _POINTER, _TEXT),
    "rd_kafka_mock_topic_set_error": (None, _POINTER, _TEXT, ctypes.c_int),
    "rd_kafka_mock_partition_delete_records": (ctypes.c_int, _POINTER, _TEXT, _INT32, _INT64),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        _POINTER,
        _INT16,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_int),
    ),
    "rd_kafka_mock_clear_request_errors": (None, _POINTER, _INT16),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, _POINTER, _INT32),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, _POINTER, _INT32),
    "rd_kafka_headers_new": (_POINTER, ctypes.c_size_t),
    "rd_kafka_header_add": (ctypes.c_int, _POINTER, _TEXT, ctypes.c_ssize_t, _TEXT, ctypes.c_ssize_t),
    "rd_kafka_produceva": (_POINTER, _POINTER, _POINTER, ctypes.c_size_t),
    "rd_kafka_flush": (ctypes.c_int, _POINTER, ctypes.c_int),
}
"""Result first, then arguments. Without them ctypes would cut pointers to 32 bits."""


class ApiKey(IntEnum):
    """Name the requests that errors can be pushed into (the Kafka protocol's numbers)."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    CONSUMER_GROUP_HEARTBEAT = 68


class _Part(ctypes.Structure):
    """Be one argument of `rd_kafka_produceva`: a kind, and 64 bytes for what that kind takes."""

    _fields_ = (("kind", ctypes.c_int), ("content", ctypes.c_uint64 * 8))

    TOPIC, VALUE, HEADERS = 1, 4, 10

    @classmethod
    def of(cls, kind: int, pointer: int | None, size: int = 0) -> Self:
        """Return one; what the pointer points to has to live until the call."""
        return cls(kind, (ctypes.c_uint64 * 8)(pointer or 0, size))


class MockCluster:
    """Run brokers inside this process while in the `with` block. Raises Unavailable where librdkafka has none."""

    def __init__(self, brokers: int = 1) -> None:
        self._brokers = brokers
        self._call = _library()
        conf = self._call["rd_kafka_conf_new"]()
        message = ctypes.create_string_buffer(512)
        # The handle only carries the cluster; its own log is of no interest.
        self._call["rd_kafka_conf_set"](conf, b"log_level", b"0", message, 512)
        self._client = self._call["rd_kafka_new"](PRODUCER, conf, message, 512)
        if not self._client:
            raise Unavailable(f"librdkafka gave no handle: {message.value.decode()}")
        self._cluster = self._call["rd_kafka_mock_cluster_new"](self._client, brokers)
        self.bootstrap: str = self._call["rd_kafka_mock_cluster_bootstraps"](self._cluster).decode()
        # 3 s by default, before the first member of a group gets anything.
        self._call["rd_kafka_mock_group_initial_rebalance_delay_ms"](self._cluster, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the cluster. A second call is harmless."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            self._call["rd_kafka_mock_cluster_destroy"](cluster)
            self._call["rd_kafka_destroy"](self._client)

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic."""
        self._check("rd_kafka_mock_topic_create", name.encode(), partitions, 1)

    def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        self._check("rd_kafka_mock_topic_delete", name.encode())

    def set_topic_error(self, name: str, code: int) -> None:
        """Answer every metadata request about a topic with an error; 0 ends that."""
        self._call["rd_kafka_mock_topic_set_error"](self._cluster, name.encode(), code)

    def delete_records(self, partition: Partition, before_offset: int) -> None:
        """Expire everything below an offset, as retention would."""
        self._check("rd_kafka_mock_partition_delete_records", partition.topic.encode(), partition.number, before_offset)

    def push_errors(self, request: ApiKey, codes: Iterable[int]) -> None:
        """Answer the next requests of a kind with these error codes, one each; `DISCONNECT` cuts the connection."""
        listed = list(codes)
        self._call["rd_kafka_mock_push_request_errors_array"](
            self._cluster, request, len(listed), (ctypes.c_int * len(listed))(*listed)
        )

    def clear_errors(self, request: ApiKey) -> None:
        """Forget the errors pushed for a kind of request that were not used up."""
        self._call["rd_kafka_mock_clear_request_errors"](self._cluster, request)

    def produce_raw(self, topic: str, value: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Produce a record whose headers have any bytes for names, as other clients can; returning means stored."""
        conf = self._call["rd_kafka_conf_new"]()
        message = ctypes.create_string_buffer(512)
        for name, text in ((b"bootstrap.servers", self.bootstrap.encode()), (b"log_level", b"0")):
            self._call["rd_kafka_conf_set"](conf, name, text, message, 512)
        producer = self._call["rd_kafka_new"](PRODUCER, conf, message, 512)
        listed = self._call["rd_kafka_headers_new"](len(headers))
        for name, text in headers:
            self._call["rd_kafka_header_add"](listed, name, len(name), text, len(text))
        named, content = ctypes.create_string_buffer(topic.encode()), ctypes.create_string_buffer(value)
        parts = (_Part * 3)(
            _Part.of(_Part.TOPIC, ctypes.addressof(named)),
            _Part.of(_Part.VALUE, ctypes.addressof(content), len(value)),
            _Part.of(_Part.HEADERS, listed),
        )
        failed = self._call["rd_kafka_produceva"](producer, ctypes.addressof(parts), 3)
        unsent = self._call["rd_kafka_flush"](producer, 10_000)
        self._call["rd_kafka_destroy"](producer)
        if failed or unsent:
            raise RuntimeError(f"the record for {topic} was not stored")

    def down(self) -> None:
        """Take every broker down: connections are cut and refused."""
        for number in range(1, self._brokers + 1):
            self._check("rd_kafka_mock_broker_set_down", number)

    def up(self) -> None:
        """Bring every broker back."""
        for number in range(1, self._brokers + 1):
            self._check("rd_kafka_mock_broker_set_up", number)

    def _check(self, name: str, *arguments: object) -> None:
        code = self._call[name](self._cluster, *arguments)
        if code != 0:
            raise RuntimeError(f"{name} failed: {confluent_kafka.KafkaError(code).str()}")


@cache
def _library() -> dict[str, Callable[..., Any]]:
    package = Path(confluent_kafka.__file__).parent
    # Where wheels keep it on Linux and on macOS; a build from source links the system's.
    bundled = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    path = str(bundled[0]) if bundled else ctypes.util.find_library("rdkafka")
    if path is None:
        raise Unavailable("no librdkafka found beside confluent_kafka")
    try:
        library = ctypes.CDLL(path)
        calls = {}
        for name, (result, *arguments) in _SIGNATURES.items():
            call = getattr(library, name)
            call.restype, call.argtypes = result, arguments
            calls[name] = call
    except (OSError, AttributeError) as error:
        raise Unavailable(f"librdkafka's mock cluster cannot be reached: {error}") from error
    return calls
