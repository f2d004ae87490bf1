"""The list of seeded faults keeps up with the code: each can be planted, and is a program that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.property.seeded_faults import EVERY, Fault, planted, verdict


def test_every_fault_has_its_place_and_names_only_what_is_there(tmp_path: Path) -> None:
    for number, fault in enumerate(EVERY):
        file, text = planted(fault)
        assert text != file.read_text(), fault.name
        (tmp_path / f"{number:03}.py").write_text(text)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821,F823,E9"]
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


TEST = """
from batcher.records import Partition, Range

def test_a_range_ends_behind_its_last_offset():
    assert Range(Partition("t", 0), 1, 5).next_offset == 6
"""


@pytest.mark.parametrize(
    ("new", "became", "detail"),
    [
        ("return self.last", "killed", "test_ranges.py::test_a_range_ends_behind_its_last_offset"),
        ("return 1 + self.last", "SURVIVED", ""),
        ("return self.last +", "NOT RUN", "ERROR"),
        ("return lasst", "NOT RUN", "NameError"),
    ],
)
def test_a_fault_that_no_test_could_run_with_is_not_taken_for_found(
    new: str, became: str, detail: str, tmp_path: Path
) -> None:
    tests = tmp_path / "test_ranges.py"
    tests.write_text(TEST)

    found, why = verdict(Fault("a fault", "Range.next_offset", "return self.last + 1", new), [[tests]])

    assert found == became
    assert detail in why


def test_a_fault_whose_code_has_changed_is_not_taken_for_found() -> None:
    gone = Fault("a fault", "Range.next_offset", "return self.first", "")
    assert verdict(gone, [[]]) == ("NOT RUN", "Range.next_offset no longer has 'return self.first'")
