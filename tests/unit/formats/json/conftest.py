"""The tests of JSON run on both paths: without the native extension, and with it where it is built."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from batcher import native

BOTH = frozenset(f"test_{name}" for name in ("format", "text", "times", "spelling", "unknown", "untyped"))
"""Modules about rows. Random input has tests/property/test_native.py, which holds one path against the other."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in BOTH:
        paths = ["python", "native"] if native.version() else ["python"]
        metafunc.parametrize("_path", paths, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def _path(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if getattr(request, "param", "auto") == "python":
            patch.setitem(sys.modules, native.MODULE, None)
            native._loaded.cache_clear()
        yield
    native._loaded.cache_clear()
