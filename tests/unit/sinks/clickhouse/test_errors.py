from __future__ import annotations

import errno
import http.client
import os
import socket
import ssl

import pytest
import urllib3
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, ProgrammingError
from hypothesis import given
from hypothesis import strategies as st

from batcher.errors import BatcherError, BlockRejected, SinkMisconfigured, SinkOverwhelmed, SinkUnavailable, Unreachable
from batcher.testing.clickhouse import EmbeddedEngine
from sinks.clickhouse.errors import RETRIED_STATUSES, RULES, UNKNOWN, WRONG_FILES, rule_for, translated

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

CANARY = "SECRET-VALUE-1234"
TARGET = "http://host:8123/db.t"


def server_error(code: int | None, text: str = f"Cannot parse string '{CANARY}'") -> DatabaseError:
    error = DatabaseError(f"Code: {code}. DB::Exception: {text}", code=code)
    error.__cause__ = RuntimeError(CANARY)
    return error


@pytest.mark.parametrize("opening", [True, False])
@pytest.mark.parametrize("has_views", [True, False])
@pytest.mark.parametrize("text", [CANARY, f"Too many partitions for single INSERT block (more than 100): {CANARY}"])
def test_every_code_has_one_reaction_and_shows_nothing_of_the_servers_text(
    opening: bool, has_views: bool, text: str
) -> None:
    reactions = {
        "done": (type(None),),
        "retry": (Unreachable,) if opening else (SinkUnavailable,),
        "halt": (SinkMisconfigured,),
        "poison": (SinkMisconfigured,) if opening or has_views else (BlockRejected,),
        "suspect": (SinkMisconfigured,) if opening or has_views else (BlockRejected,),
    }
    for code in range(2001):
        error = server_error(code, text)
        error.__context__ = ValueError(CANARY)
        ours = translated(error, TARGET, opening=opening, has_views=has_views)
        slower = (SinkOverwhelmed,) if code == 252 and text == CANARY and not opening else None
        assert type(ours) in (slower or reactions[rule_for(code, text).reaction]), code
        shown = f"{ours!r} {error!r} {error.__cause__!r} {error.__context__!r}"
        assert CANARY not in shown, code
        assert str(ours).isprintable()


@pytest.mark.parametrize("opening", [True, False])
def test_every_http_status_has_one_reaction_and_shows_nothing_of_the_servers_text(opening: bool) -> None:
    for status in range(100, 1000):
        text = f"HTTP driver received HTTP status {status}, server response: {CANARY}"
        ours = translated(OperationalError(text), TARGET, opening=opening)
        retried = Unreachable if opening else SinkUnavailable
        assert type(ours) is (retried if status in RETRIED_STATUSES else SinkMisconfigured), status
        assert CANARY not in str(ours)


@pytest.mark.parametrize("opening", [True, False])
def test_every_number_of_the_system_has_one_reaction(opening: bool) -> None:
    for number in errno.errorcode:
        ours = translated(OSError(number, os.strerror(number), CANARY), TARGET, opening=opening)
        retried = Unreachable if opening else SinkUnavailable
        assert type(ours) is (SinkMisconfigured if number in WRONG_FILES else retried), errno.errorcode[number]
        assert CANARY not in str(ours)


@given(st.integers().filter(lambda code: code not in RULES))
def test_of_a_code_nobody_listed_a_row_is_suspected_and_nothing_where_views_may_have_stored_it(code: int) -> None:
    assert rule_for(code) is UNKNOWN
    ours = translated(server_error(code), TARGET)
    assert isinstance(ours, BlockRejected)
    assert ours.suspect
    assert isinstance(translated(server_error(code), TARGET, has_views=True), SinkMisconfigured)
    assert isinstance(translated(server_error(code), TARGET, opening=True), SinkMisconfigured)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((159, 202, 209, 210, 225, 241, 242, 243, 319, 373, 425, 499, 745, 999, 3, 107, 201), SinkUnavailable),
        ((252,), SinkOverwhelmed),
        ((16, 20, 47, 60, 81, 115, 164, 497, 516), SinkMisconfigured),
        ((6, 53, 117, 131, 321, 349, 376, 407, 469, 675, 676, 691, 153, 190, 395, 32), BlockRejected),
    ],
)
def test_codes_are_in_the_class_that_experiments_gave(codes: tuple[int, ...], expected: type[BatcherError]) -> None:
    assert {type(translated(server_error(code), TARGET)) for code in codes} == {expected}


def test_too_many_parts_waits_and_too_many_partitions_does_not() -> None:
    parts = server_error(252, "Too many parts (300) in all data parts")
    partitions = server_error(252, "Too many partitions for single INSERT block (more than 100)")
    assert isinstance(translated(parts, TARGET), SinkUnavailable)
    ours = translated(partitions, TARGET)
    assert isinstance(ours, SinkMisconfigured)
    assert "max_partitions_per_insert_block" in str(ours)


def test_a_deduplicated_insert_is_a_success() -> None:
    assert translated(server_error(389), TARGET) is None


def test_a_poisoned_block_is_not_halved_where_views_may_have_stored_it() -> None:
    assert isinstance(translated(server_error(469), TARGET, has_views=False), BlockRejected)
    ours = translated(server_error(469), TARGET, has_views=True)
    assert isinstance(ours, SinkMisconfigured)
    assert "views" in str(ours)


@pytest.mark.parametrize("code", [74, 75, 76, 95, 156, 416, 424, 586, 614, 677, 749, 778])
def test_a_server_whose_disk_or_network_fails_costs_no_record(code: int) -> None:
    assert isinstance(translated(server_error(code), TARGET), SinkUnavailable)


@pytest.mark.parametrize("code", [46, 195, 291, 344, 472, 512, 720, 774, 1016])
def test_a_right_or_a_setting_that_is_gone_costs_no_record(code: int) -> None:
    assert isinstance(translated(server_error(code), TARGET), SinkMisconfigured)


@pytest.mark.parametrize("code", [6, 153, 4242])
def test_no_row_is_to_blame_for_a_question(code: int) -> None:
    ours = translated(server_error(code), TARGET, asking=True)
    assert isinstance(ours, SinkMisconfigured)
    assert "views" not in str(ours)


def test_a_question_that_got_no_answer_is_not_called_an_insert() -> None:
    error = OperationalError("Error executing HTTP request")
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert "insert" not in str(translated(error, TARGET, asking=True))


def test_a_proxy_that_takes_no_bodies_of_that_size_is_told_apart() -> None:
    ours = translated(DatabaseError("HTTP driver received HTTP status 413"), TARGET)
    assert isinstance(ours, SinkMisconfigured)
    assert "--batch.max-bytes" in str(ours)


@pytest.mark.parametrize("code", [6, 60, 241, 4242, None])
def test_the_servers_text_reaches_neither_the_message_nor_the_chain(code: int | None) -> None:
    text = f"HTTP driver received HTTP status 500, server response: {CANARY}" if code is None else CANARY
    error = DatabaseError(text, code=code)
    error.__cause__ = RuntimeError(CANARY)
    ours = translated(error, TARGET)
    assert CANARY not in str(ours)
    assert CANARY not in repr(error)
    assert not any((error.__cause__, error.__context__))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_status_of_a_busy_proxy_is_retried(status: int) -> None:
    error = f"HTTP driver received HTTP status {status}, server response: busy"
    assert isinstance(translated(OperationalError(error), TARGET), SinkUnavailable)
    assert isinstance(translated(OperationalError(error), TARGET, opening=True), Unreachable)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_a_status_that_stays_halts(status: int) -> None:
    assert isinstance(
        translated(DatabaseError(f"HTTP driver received HTTP status {status}"), TARGET), SinkMisconfigured
    )


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "was reset; the outcome of the insert is unknown"),
        (ConnectionRefusedError(111, "refused"), "connection refused); nothing was sent"),
        (socket.gaierror(-2, "Name or service not known"), "name of the host is not known; correct --clickhouse.dsn"),
        (ssl.SSLCertVerificationError("bad"), "its certificate is not trusted"),
        (ssl.SSLError("wrong version"), "is it the port for https"),
        (ssl.SSLEOFError("eof"), "in the middle of TLS; is it the port for https?; the outcome"),
        (TimeoutError("timed out"), "no answer within"),
    ],
)
def test_a_failed_connection_says_in_words_why_and_whether_anything_was_sent(cause: OSError, words: str) -> None:
    error = OperationalError("Error executing HTTP request")
    error.__cause__ = cause
    ours = translated(error, TARGET)
    assert isinstance(ours, SinkUnavailable)
    assert words in str(ours)
    assert type(cause).__name__ not in str(ours)
    assert isinstance(translated(error, TARGET, opening=True), Unreachable)


def test_a_server_that_takes_no_connection_was_sent_nothing() -> None:
    error = OperationalError("Error executing HTTP request")
    error.__cause__ = urllib3.exceptions.ConnectTimeoutError()
    error.__cause__.__cause__ = TimeoutError("timed out")
    assert str(translated(error, TARGET)).endswith("no connection within the time for it; nothing was sent")


def test_what_speaks_no_http_is_taken_for_the_wrong_port() -> None:
    error = OperationalError("Error executing HTTP request")
    error.__cause__ = http.client.BadStatusLine(CANARY)
    ours = str(translated(error, TARGET, opening=True))
    assert "8123, and not 9000" in ours
    assert CANARY not in ours


def test_an_answer_that_is_not_clickhouses_is_called_so() -> None:
    ours = translated(OperationalError(f"Unexpected response to server version query: {CANARY}"), TARGET, opening=True)
    assert str(ours) == f"{TARGET} does not answer: the answer is not one of a ClickHouse server"


def test_a_certificate_that_goes_away_while_running_is_no_bad_connection() -> None:
    error = OperationalError("Error executing HTTP request")
    error.__cause__ = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert isinstance(translated(error, TARGET), SinkMisconfigured)


def test_a_full_disk_under_the_temporary_file_is_retried() -> None:
    assert isinstance(translated(OSError(28, "No space left on device"), TARGET), SinkUnavailable)


def test_what_the_driver_itself_refuses_halts() -> None:
    ours = translated(ProgrammingError("Setting async_insert is readonly"), TARGET)
    assert isinstance(ours, SinkMisconfigured)
    assert "async_insert" in str(ours)


def test_codes_are_named_as_the_engine_names_them(chdb_engine: EmbeddedEngine) -> None:
    listed = ", ".join(str(code) for code in sorted(RULES))
    names = dict(chdb_engine.rows(f"SELECT arrayJoin([{listed}]) AS code, errorCodeToName(code)"))
    assert {code: rule.name for code, rule in RULES.items()} == names
