"""The same mistake has the same exit code, wherever it was made and whichever verb hears of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from batcher.cli import main as cli
from batcher.cli.verbs import VERBS
from batcher.settings.reference import reference

CODES = {0, 2, 69, 75, 78}
KAFKA = ["-b", "127.0.0.1:1", "-t", "t", "-g", "g", "--start-timeout", "0s"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


MISTAKES = [
    ("batch", "max_rows", "-1"),
    ("batch", "max_wait", "soon"),
    ("kafka", "start", "yesterday"),
    ("kafka", "topics", "^("),
    ("decode", "format", "xml"),
    ("decode", "epoch", "fortnights"),
    ("decode", "max_depth", "9999"),
    ("decode", "schema", "columns.csv"),
    ("http", "addr", "9100"),
    ("", "sink", "clickhose"),
]


@pytest.mark.parametrize("place", ["flag", "variable", "file"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_that_can_be_told_from_the_settings_is_2_wherever_it_was_made(
    mistake: tuple[str, str, str],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    section, name, value = mistake
    words = ["--sink", "null", *KAFKA]
    if name in ("sink", "topics"):
        at = words.index("--sink" if name == "sink" else "-t")
        del words[at : at + 2]
    if place == "flag":
        words += ["--" + ".".join(filter(None, (section, name))).replace("_", "-"), value]
    elif place == "variable":
        monkeypatch.setenv("_".join(filter(None, ("BATCHER", section, name))).upper(), value)
    else:
        Path("batcher.toml").write_text(f'[{section}]\n{name} = "{value}"\n' if section else f'{name} = "{value}"\n')
        words += ["-c", "batcher.toml"]

    assert cli.main(words) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a = [", b"[batch]\nmax_rowz = 1\n", b"batch = 3\n", b"\x00"])
def test_a_file_that_cannot_be_understood_is_2_in_one_line(text: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("batcher.toml").write_bytes(text)

    assert cli.main(["-c", "batcher.toml", "--sink", "null", *KAFKA]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["verify", "repair", "bench", "dlq replay", "run"])
def test_every_verb_gives_a_setting_that_cannot_be_the_same_code(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["-b", "k:1", "-g", "g", "--dlq.path", "dead"] if verb == "dlq replay" else KAFKA[:-2]
    words = [*verb.split(), "--sink", "clickhouse", "--clickhouse.table", "t", *source]

    assert cli.main([*words, "--clickhouse.dsn", "ftp://h/d"]) == 2
    assert "--clickhouse.dsn: begins with none of" in capsys.readouterr().err


READERS = {
    "run": ["--sink", "null", *KAFKA],
    "verify": ["--sink", "parquet", "--parquet.path", "files", *KAFKA[:-2]],
    "repair": ["--sink", "parquet", "--parquet.path", "files", *KAFKA[:-2]],
    "bench": ["--sink", "null", *KAFKA[:-2]],
    "produce": ["-b", "127.0.0.1:1", "-t", "t", "--count", "1"],
    "dlq ls": ["-b", "127.0.0.1:1", "--dlq.topic", "d"],
    "dlq replay": ["-b", "127.0.0.1:1", "--dlq.path", ".", "--to", "topic"],
}
"""Every verb that makes a Kafka client of what `-X` gives it."""


@pytest.mark.parametrize("verb", READERS)
@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ("linger.ms=abc", 2, "-X linger.ms: Invalid value for configuration property"),
        ("sasl.passwort=hunter22", 2, '-X sasl.passwort: No such configuration property: "sasl.passwort"'),
        ("ssl.ca.location=none.pem", 78, "-X ssl.ca.location: 'none.pem' cannot be read: No such file or directory"),
        ("ssl.providers=p", 2, "-X ssl.providers is refused: it loads code into the process"),
    ],
)
def test_every_verb_refuses_a_property_with_the_same_code_and_words(
    verb: str, given: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*verb.split(), *READERS[verb], "-X", given]) == code

    err = capsys.readouterr().err
    assert said in err.replace('\\"', '"')
    assert "hunter22" not in err


def test_what_anybody_could_listen_to_has_to_be_asked_for_to_send_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["produce", *READERS["produce"], "-X", "enable.ssl.certificate.verification=false"]

    assert cli.main(words) == 2
    assert "--kafka.allow-insecure permits it" in capsys.readouterr().err
    assert cli.main([*words, "-X", "linger.ms=abc", "--kafka.allow-insecure"]) == 2
    assert "-X linger.ms" in capsys.readouterr().err


ODD = ["", " ", "-", "--", "=", ",", "\x00", "\n", "²", "-1", "0", "9" * 30, "1e9", "nan", "none", "/", "../..", "://"]
ODD += ["a=b", "^(", "*", "'", "😀", "\udc80", "x" * 5000, "[::1", "%zz", "{}", "1s", "1MiB", "auto", "yes"]


def odd_words(seed: int) -> list[str]:
    """Return a command line of real flags with values that few of them take. Nothing in it starts a load."""
    chance = random.Random(seed)
    verbs = ["run", "verify", "repair", "config show", "produce", "dlq ls", "dlq replay", "bench", "plugins", *VERBS]
    words = chance.choice([verb for verb in verbs if verb != "demo"]).split()
    for row in chance.sample(reference(), chance.randint(1, 5)):
        if row.name == "workers":
            continue
        words.append(chance.choice([name for name in (row.flag, row.short) if name]))
        if row.kind != "switch":
            words.append(chance.choice(ODD))
    return words


@pytest.mark.parametrize("seed", range(150))
def test_whatever_stands_on_the_command_line_ends_with_a_code_of_the_table_and_without_a_traceback(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words: Sequence[str] = odd_words(seed)

    code = cli.main(words)

    said = capsys.readouterr()
    assert code in CODES, words
    assert "Traceback" not in said.err + said.out, words
    assert code == 0 or said.err, words
