"""No password in a URL comes out anywhere, whatever characters it has and however wrong the URL is."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from unittest.mock import patch
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batcher.cli import main as cli
from batcher.settings import masked_url
from batcher.telemetry import logs

# Letters that no message of ours has in a row, with everything that ends a part of a URL.
PASSWORDS = st.builds(
    lambda parts, ends: "".join(part + end for part, end in zip(parts, [*ends, ""], strict=False)) or "Q7xZ9qW",
    st.lists(st.text("QXZJ7394", min_size=5, max_size=9), min_size=1, max_size=4),
    st.lists(st.sampled_from("@/#?:%&= ;"), max_size=3),
)
FORMS = st.sampled_from(
    ["http://etl:{}@127.0.0.1:1/d", "https://etl:{}@127.0.0.1:1", "http://:{}@h", "nonsense://u:{}@h", "http://u:{}@"]
)


@contextlib.contextmanager
def heard() -> Iterator[io.StringIO]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said


def secret_parts(password: str) -> list[str]:
    return [part for part in re.split(r"[@/#?:%&= ;]+", password) if len(part) >= 4]


@given(PASSWORDS, FORMS, st.booleans(), st.sampled_from(["flag", "variable"]), st.sampled_from(["console", "json"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_output_of_a_run_or_of_config_show_has_a_password_or_a_part_of_it(
    password: str, form: str, encoded: bool, place: str, style: str
) -> None:
    dsn = form.format(quote(password, safe="") if encoded else password)
    words = ["--sink", "clickhouse", "--clickhouse.table", "t", "-b", "127.0.0.1:1", "-t", "t", "-g", "g"]
    words += ["--log.format", style, "--start-timeout", "0s", "--json"]
    variables = {} if place == "flag" else {"BATCHER_CLICKHOUSE_DSN": dsn}
    words += ["--clickhouse.dsn", dsn] if place == "flag" else []
    hidden = set(logs._secrets)
    with patch.dict(os.environ, variables), heard() as said:
        assert cli.main(["config", "show", *words[:-3]]) in {0, 2, 78}
        assert cli.main(words) in {2, 69, 78}
    logs._secrets.clear()
    logs._secrets.update(hidden)
    for part in secret_parts(password):
        assert part not in said.getvalue()


@given(PASSWORDS, FORMS)
def test_a_masked_url_has_nothing_of_the_password(password: str, form: str) -> None:
    for part in secret_parts(password):
        assert part not in masked_url(form.format(password))


@pytest.mark.parametrize("password", ["p@ss/w#rd?x", "s3cr/et", "a#b@c", "x?y@z"])
def test_a_password_that_has_to_be_encoded_is_refused_before_anything_connects(password: str) -> None:
    with heard() as said:
        code = cli.main(["config", "show", "--clickhouse.dsn", f"http://etl:{password}@h:8123/d"])
    assert code == 2
    assert "%40" in said.getvalue()
    assert "BATCHER_CLICKHOUSE_PASSWORD_FILE" in said.getvalue()
