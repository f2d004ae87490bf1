"""Lake tables for orders, and the same sinks with the check taken out: the control of their kill loops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import deltalake
import pyarrow as pa
from moto.server import ThreadedMotoServer

import sinks
from batcher.plugins import PluginContext
from batcher.records import Partition
from sinks.lake.sink import LakeSink
from tests.harness.stores import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from tests.harness.targets import ORDER_SCHEMA, Loaded


class DeltaOrders:
    """Keep orders in a Delta table. `storage` are options of an object store; `sink` is another one that writes it."""

    def __init__(
        self,
        path: str,
        schema_file: Path,
        *,
        storage: Mapping[str, str] | None = None,
        sink: str = "delta",
        partition_by: Sequence[str] = (),
    ) -> None:
        self.path = path
        self._schema_file = schema_file
        self._storage = dict(storage or {})
        self._sink = sink
        self._partition_by = partition_by
        with pa.ipc.new_file(str(schema_file), ORDER_SCHEMA):
            pass

    @property
    def arguments(self) -> Sequence[str]:
        given = ["--decode.schema", str(self._schema_file)]
        for name, value in self._storage.items():
            given += ["--delta.option", f"{name}={value}"]
        if self._partition_by:
            given += ["--delta.partition-by", ",".join(self._partition_by)]
        return ("--sink", self._sink, "--delta.path", self.path, *given)

    def loaded(self) -> Loaded:
        table = deltalake.DeltaTable(self.path, storage_options=self._storage or None)
        return loaded_from(table.to_pyarrow_table(columns=["_topic", "_partition", "_offset", "id"]))


def loaded_from(rows: pa.Table) -> Loaded:
    """Return what the rows of a table are."""
    columns = (rows[name].to_pylist() for name in ("_topic", "_partition", "_offset"))
    places = [(Partition(topic, number), offset) for topic, number, offset in zip(*columns, strict=True)]
    ids = rows["id"].to_pylist()
    return Loaded(places, sum(ids), ids)


def unchecked_delta(options: Any, context: PluginContext) -> Any:
    """Return a Delta sink that commits what it is given, for a command line: what kills do without the check."""
    return unchecked(sinks.load("delta")(options, context=context))


for _name in ("options", "section"):
    setattr(unchecked_delta, _name, getattr(sinks.load("delta"), _name))


def unchecked(sink: Any) -> Any:
    """Return a sink that from now on neither looks for rows nor keeps positions."""
    assert isinstance(sink, LakeSink)
    write, append = sink.write, sink._table.append

    def careless(block: Any) -> None:
        with without_check():
            write(block)

    sink.write = careless  # type: ignore[method-assign]
    sink._table.append = partial(_without_positions, append)  # type: ignore[method-assign]
    return sink


def _without_positions(append: Callable[..., None], rows: pa.Table, positions: object) -> None:
    del positions
    append(rows, {})


@contextmanager
def without_check() -> Iterator[None]:
    """Let no row be taken for one that is there."""
    with patch("sinks.lake.position.doubtful", lambda *_: []):
        yield


def options_for(server: S3Server) -> dict[str, str]:
    """Return the options with which a Delta table lies on an S3 server."""
    return {
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
        "region": REGION,
        "endpoint_url": server.endpoint,
        "allow_http": "true",
    }


@contextmanager
def s3_bucket(name: str) -> Iterator[dict[str, str]]:
    """Run an S3 server in this process with one bucket, and yield the options that a Delta table there needs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"aws_access_key_id": "anybody", "aws_secret_access_key": "not-a-secret", "region_name": "us-east-1"}
        client: Any = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
        client.create_bucket(Bucket=name)
        yield {
            "access_key_id": "anybody",
            "secret_access_key": "not-a-secret",
            "region": "us-east-1",
            "endpoint_url": f"http://{host}:{port}",
            "allow_http": "true",
        }
    finally:
        server.stop()
