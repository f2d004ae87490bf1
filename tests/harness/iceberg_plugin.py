"""Fixtures for tables of Iceberg: `pytest_plugins = ["tests.harness.iceberg_plugin"]`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import pytest

from batcher.embedded.jars import Unavailable
from tests.harness.iceberg import Lake
from tests.harness.iceberg_rest import RestCatalogServer

_NUMBERS = count()


@pytest.fixture(scope="module")
def rest_catalog() -> Iterator[RestCatalogServer]:
    """Return a REST catalog on loopback, or skip with the reason why there is none."""
    try:
        with RestCatalogServer() as running:
            yield running
    except Unavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"no REST catalog: {error}")
        pytest.skip(f"no REST catalog: {error}")


@pytest.fixture
def rest_lake(rest_catalog: RestCatalogServer) -> Lake:
    """Return a place for a table in a REST catalog that nobody has used."""
    return Lake({"type": "rest", "uri": rest_catalog.uri}, f"shop{next(_NUMBERS)}.orders")
