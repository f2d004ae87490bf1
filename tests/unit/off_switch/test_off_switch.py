"""A file says what it says; a URL that is none is refused before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.off_switch import file_says
from batcher.off_switch.redis import RedisKey


@pytest.mark.parametrize(("text", "off"), [(None, False), ("", True), ("stopped\n", True), ("running", False)])
def test_a_file_says_stopped_by_being_there_empty_or_with_the_word(tmp_path: Path, text: str | None, off: bool) -> None:
    file = tmp_path / "pause"
    if text is not None:
        file.write_text(text)

    assert file_says(file)() is off


def test_a_file_that_cannot_be_read_is_an_error_and_not_an_answer(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        file_says(tmp_path)()


@pytest.mark.parametrize("url", ["http://h", "redis://", "redis://h/name", "localhost:6379"])
def test_a_url_that_is_none_of_redis_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="redis://"):
        RedisKey(url, "k")
