from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ByteSize, TypeAdapter

from batcher.options.units import parse_duration, parse_list, parse_mapping, show_duration, show_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("1s", 1), ("0.5s", 0.5), ("2m", 120), ("1h30m", 5400), ("1d", 86400), ("1 h 5 s", 3605)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["1", "", "s", "1x", "-1s", "1s2", "1e3s", 5, 0.5])
def test_a_duration_without_a_unit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="unit"):
        parse_duration(text)


@settings(deadline=None)
@given(st.integers(0, 10_000 * 86_400_000))
def test_a_duration_is_read_back_as_it_is_shown(milliseconds: int) -> None:
    value = timedelta(milliseconds=milliseconds)

    assert parse_duration(show_duration(value)) == value


@settings(deadline=None)
@given(st.integers(0, 1 << 53))  # pydantic reads sizes through a float
def test_a_size_is_read_back_as_it_is_shown(size: int) -> None:
    assert TypeAdapter(ByteSize).validate_python(show_size(size)) == size


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ("a",)),
        ("a, b,,c ", ("a", "b", "c")),
        ("", ()),
        ("^x{1,2}", ("^x{1,2}",)),
        ("a,^x{1,2}|y", ("a", "^x{1,2}|y")),
        (["a,b", "^c{1,2}"], ("a", "b", "^c{1,2}")),
    ],
)
def test_a_list_is_split_at_commas_and_a_regular_expression_is_not(text: object, names: tuple[str, ...]) -> None:
    assert parse_list(text) == names


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a=1,b.c=2", {"a": "1", "b.c": "2"}),
        ("sasl.password=p,q=,r", {"sasl.password": "p", "q": ",r"}),
        ("sasl.password=p,q", {"sasl.password": "p,q"}),
        ("a=1\n# a comment\n\nb=2,c=3\n", {"a": "1", "b": "2,c=3"}),
        ("a==", {"a": "="}),
        ({"a": 1, "b": True, "c": 0.5}, {"a": "1", "b": "true", "c": "0.5"}),
    ],
)
def test_pairs_keep_commas_inside_values(text: object, pairs: dict[str, str]) -> None:
    assert parse_mapping(text) == pairs


def test_a_pair_without_a_value_is_refused_without_being_quoted() -> None:
    with pytest.raises(ValueError, match="name=value") as error:
        parse_mapping("hunter22")

    assert "hunter22" not in str(error.value)
