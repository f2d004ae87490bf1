"""Delta tables on S3: conditional puts keep commits apart, and what the store says reaches the person who reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import deltalake
import pyarrow as pa
import pytest

import sinks
from batcher.errors import SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.testing.contract.sink import block_for, opened
from batcher.testing.values import EVENTS_0
from sinks.lake.sink import LakeSink
from tests.harness.lakes import s3_bucket

KEYS = {"access_key_id": "anybody", "secret_access_key": "not-a-secret", "region": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Return where an S3 server answers that has the bucket `lake`."""
    with s3_bucket("lake") as storage:
        yield storage["endpoint_url"]


@pytest.fixture
def path() -> str:
    """Return a place in the bucket that nobody has used."""
    return f"s3://lake/{uuid4().hex[:8]}/events"


def sink_at(path: str, endpoint: str, **options: str) -> LakeSink:
    sink = sinks.load("delta")({"path": path, "option": {**KEYS, "endpoint_url": endpoint, **options}})
    assert isinstance(sink, LakeSink)
    return sink


def rows_at(path: str, endpoint: str) -> list[dict[str, Any]]:
    options = {**KEYS, "endpoint_url": endpoint, "allow_http": "true"}
    rows: list[dict[str, Any]] = deltalake.DeltaTable(path, storage_options=options).to_pyarrow_table().to_pylist()
    return rows


def test_a_table_in_a_bucket_is_made_loaded_once_and_asked(path: str, endpoint: str) -> None:
    sink = sink_at(path, endpoint)
    info, schema = opened(sink)
    assert info.target == path
    sink.write(block_for(info, schema))
    successor = sink_at(path, endpoint)
    info, schema = opened(successor)
    successor.write(block_for(info, schema))
    assert successor.copies(EVENTS_0, 0, 9)["copies"].to_pylist() == [1, 1, 1, 1]
    assert len(rows_at(path, endpoint)) == 4


def test_of_two_processes_that_commit_the_same_rows_the_store_lets_one(path: str, endpoint: str) -> None:
    zombie, successor = sink_at(path, endpoint), sink_at(path, endpoint)
    info, schema = opened(zombie)
    opened(successor)
    append = zombie._table.append

    def late(rows: pa.Table, positions: Any) -> None:
        successor.write(block_for(info, schema))
        append(rows, positions)

    zombie._table.append = late  # type: ignore[method-assign]
    with pytest.raises(SinkUnavailable, match="another writer was first"):
        zombie.write(block_for(info, schema))
    assert len(rows_at(path, endpoint)) == 4


def test_a_bucket_that_is_not_there_is_said_in_the_stores_own_words(endpoint: str) -> None:
    with pytest.raises(SinkMisconfigured, match="404 NoSuchBucket: The specified bucket does not exist"):
        sink_at("s3://nowhere/t", endpoint).open()


def test_a_store_that_does_not_answer_is_waited_for_and_nothing_is_said_of_keys(path: str) -> None:
    sink = sink_at(path, "http://127.0.0.1:1", max_retries="0")
    with pytest.raises(Unreachable, match="Connection refused") as caught:
        sink.open()
    assert "not-a-secret" not in str(caught.value)


def test_plain_http_to_another_machine_has_to_be_asked_for(path: str) -> None:
    with pytest.raises(SinkMisconfigured, match="allow_http=true"):
        sink_at(path, "http://192.0.2.1").open()


def test_a_measurement_in_a_bucket_is_refused_because_it_would_leave_something_there(path: str, endpoint: str) -> None:
    sink = sink_at(path, endpoint)
    with pytest.raises(SinkMisconfigured, match="measure without it"), sink.rehearsal("x"):
        pass
