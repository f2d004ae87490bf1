"""`batcher completion`: bash itself is asked what it would offer."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from batcher.cli.main import main
from batcher.cli.verbs import VERBS
from batcher.cli.verbs.completion import SHELLS, _tree
from batcher.plugins import registry_of
from batcher.settings import reference
from tests.harness.processes import run, run_shell

shtab = pytest.importorskip("shtab", reason="needs the extra [completion]")


@pytest.fixture(scope="module")
def tree() -> argparse.ArgumentParser:
    return _tree()


@pytest.fixture(scope="module")
def of_bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    done = run("completion", "bash")
    assert done.code == 0, done.stderr
    path = tmp_path_factory.mktemp("completion") / "batcher"
    path.write_text(done.stdout)
    return path


def offered(of_bash: Path, *words: str) -> set[str]:
    """Return what bash offers for the last of the words."""
    quoted = " ".join(f"'{word}'" for word in ("batcher", *words))
    done = run_shell(
        f"set -u; . {of_bash}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; COMPREPLY=()\n"
        "$(complete -p batcher | sed 's/.*-F \\([^ ]*\\) .*/\\1/')\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert done.code == 0, done.stderr
    return {line.strip() for line in done.stdout.splitlines()} - {""}


def test_bash_completes_verbs_and_the_commands_of_a_verb(of_bash: Path) -> None:
    assert offered(of_bash, "") >= set(VERBS)
    assert offered(of_bash, "do") == {"doctor"}
    assert offered(of_bash, "config", "i") == {"init"}
    assert offered(of_bash, "dlq", "re") == {"replay"}


def test_bash_completes_flags_of_the_verb_and_of_the_default_verb(of_bash: Path) -> None:
    assert offered(of_bash, "run", "--kafka.st") == {"--kafka.start"}
    assert offered(of_bash, "--kafka.st") == {"--kafka.start"}
    assert offered(of_bash, "lag", "--max-b") == {"--max-behind"}
    assert "--max-behind" not in offered(of_bash, "run", "--max")


def test_bash_completes_the_names_of_plug_ins_and_the_values_of_a_choice(of_bash: Path) -> None:
    assert offered(of_bash, "run", "--sink", "") == set(registry_of("sink").names())
    assert offered(of_bash, "run", "--source", "s") == {"share", "sqs"}
    assert offered(of_bash, "run", "--on-existing", "") == {"halt", "skip", "write"}


def test_every_flag_of_a_run_is_completed_and_none_that_help_hides(tree: argparse.ArgumentParser) -> None:
    flags = {flag for action in tree._actions for flag in action.option_strings}
    assert {row.flag for row in reference()} <= flags
    assert not {"--as-worker", "--hand-over-parser"} & flags


def test_each_shell_gets_a_script_that_names_the_verbs(tree: argparse.ArgumentParser) -> None:
    for shell in SHELLS:
        text = shtab.complete(tree, shell=shell)
        assert all(verb in text for verb in VERBS)
        assert "SUPPRESS" not in text


def test_a_shell_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcl"]) == 2
    assert "bash" in capsys.readouterr().err
