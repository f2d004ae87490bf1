import os
import threading

from batcher.generate.lines import LineCutter, line_chunks, lines
from batcher.generate.skipped import SkipReason

RUNNING = threading.Event()


def test_lines_of_a_pipe_are_sent_as_they_come_and_empty_ones_left_out() -> None:
    reader, writer = os.pipe()
    found = lines(reader, RUNNING)

    os.write(writer, b'{"a":1}\r\n\n{"b":2}\n{"c"')
    assert next(found) == [b'{"a":1}', b'{"b":2}']
    os.write(writer, b":3}")
    os.close(writer)
    assert [line for chunk in found for line in chunk] == [b'{"c":3}']
    os.close(reader)


def test_a_pipe_that_says_nothing_does_not_keep_a_stop_waiting() -> None:
    reader, writer = os.pipe()
    stop = threading.Event()
    stop.set()

    assert list(lines(reader, stop)) == []
    os.close(reader)
    os.close(writer)


def test_lines_are_numbered_and_empty_ones_are_said() -> None:
    chunks = list(line_chunks([b"a\n\r\nb", b"c\n", b"d"], "x", lambda: False, 100))

    assert [item for chunk in chunks for item in zip(chunk.numbers, chunk.items, strict=True)] == [
        (1, b"a"),
        (2, SkipReason.EMPTY),
        (3, b"bc"),
        (4, b"d"),
    ]


def test_half_a_line_is_not_sent_after_a_stop() -> None:
    chunks = line_chunks([b"whole\nhal"], "x", lambda: True, 100)

    assert [item for chunk in chunks for item in chunk.items] == [b"whole"]


def test_a_line_without_an_end_is_not_held() -> None:
    cutter = LineCutter(10)

    for _ in range(1000):
        assert cutter.take(b"x" * 8) == []
        assert sum(map(len, cutter._held)) <= 10
    assert cutter.take(b"x\nshort\n") == [SkipReason.TOO_LARGE, b"short"]
