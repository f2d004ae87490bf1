"""Values that their producers compressed one by one."""

from __future__ import annotations

import gzip
import importlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import ConfigurationError
from batcher.formats import compression
from batcher.formats.compression import Compression, Decompressed, decompress

BOUND = 1000
zstd = compression._zstd()


def pack_zstd(data: bytes, **options: int) -> bytes:
    packer = zstd.ZstdCompressor(options={getattr(zstd.CompressionParameter, name): n for name, n in options.items()})
    return bytes(packer.compress(data) + packer.flush())


PACK: dict[Compression, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": pack_zstd}


@pytest.fixture(params=["gzip", "zstd"])
def kind(request: pytest.FixtureRequest) -> Compression:
    given: Compression = request.param
    return given


def unpacked(kind: Compression, *values: bytes | None, bound: int = BOUND) -> Decompressed:
    half = len(values) // 2
    return decompress(pa.chunked_array([values[:half], values[half:]], pa.binary()), kind, bound)


def test_without_compression_values_stay_what_they_are() -> None:
    values = pa.chunked_array([[b"a", None]], pa.binary())
    assert decompress(values, "none", 1).values is values


def test_each_value_is_decompressed_in_its_place(kind: Compression) -> None:
    pack = PACK[kind]
    done = unpacked(kind, pack(b"one"), None, pack(b""), pack(b"four"))
    assert done.values.to_pylist() == [b"one", None, b"", b"four"]
    assert done.values.type == pa.binary()
    assert done.rejections == ()


def test_members_that_follow_each_other_are_one_value(kind: Compression) -> None:
    pack = PACK[kind]
    assert unpacked(kind, pack(b"a") + pack(b"") + pack(b"b")).values.to_pylist() == [b"ab"]


def test_exactly_the_damaged_values_are_refused_and_no_neighbour(kind: Compression) -> None:
    pack = PACK[kind]
    good = pack(b"good" * 9)
    bad = [b"", b"no", good[:-1], good[:5], good + b"x", good + good[:-2], good + b"junk" * 9, good[4:]]
    values = [value for one in bad for value in (good, one)]
    done = unpacked(kind, *values)
    assert done.values.to_pylist() == [b"good" * 9, None] * len(bad)
    assert [one.position for one in done.rejections] == [1 + 2 * number for number in range(len(bad))]
    assert {one.reason for one in done.rejections} == {"compression"}
    assert all("good" not in one.message and "junk" not in one.message for one in done.rejections)


def test_a_value_of_the_bound_is_taken_and_one_of_a_byte_more_is_not(kind: Compression) -> None:
    pack = PACK[kind]
    done = unpacked(
        kind,
        pack(b"a" * BOUND),
        pack(b"a" * (BOUND + 1)),
        pack(b"a" * BOUND) + pack(b"a"),
        pack(b"a" * 999) + pack(b"b"),
    )
    assert [None if value is None else len(value) for value in done.values.to_pylist()] == [BOUND, None, None, BOUND]
    assert [one.reason for one in done.rejections] == ["too_large", "too_large"]


def test_a_bomb_takes_no_more_memory_than_the_bound(kind: Compression) -> None:
    bomb = PACK[kind](b"\0" * (64 << 20))
    unpacked(kind, bomb)  # what is imported only once is not counted
    tracemalloc.start()
    try:
        done = unpacked(kind, bomb, bound=1 << 20)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [one.reason for one in done.rejections] == ["too_large"]
    assert most < 4 << 20


def test_a_zstd_frame_that_asks_for_a_large_window_is_refused_unless_the_bound_allows_it() -> None:
    greedy = pack_zstd(b"a" * 100, window_log=27)
    assert [one.reason for one in unpacked("zstd", greedy).rejections] == ["compression"]
    assert unpacked("zstd", greedy, bound=1 << 27).values.to_pylist() == [b"a" * 100]
    assert unpacked("zstd", pack_zstd(b"a" * 100, window_log=23)).rejections == ()


def test_a_value_of_very_many_members_is_refused(kind: Compression) -> None:
    empty = PACK[kind](b"")
    done = unpacked(kind, empty * 256, empty * 257)
    assert done.values.to_pylist() == [b"", None]
    assert "parts" in done.rejections[0].message


def test_a_large_result_is_cut_into_chunks(kind: Compression, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_CHUNK_BYTES", 5)
    pack = PACK[kind]
    done = unpacked(kind, pack(b"abc"), pack(b"def"), None, pack(b"0123456789"), pack(b"g"))
    assert done.values.to_pylist() == [b"abc", b"def", None, b"0123456789", b"g"]
    assert done.values.num_chunks == 4


def test_without_a_zstd_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigurationError, match=r"pip install backports\.zstd"):
        unpacked("zstd", b"")
