"""What the product is made of is written down whole, and an audit that cannot be made fails nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from deploy import materials

HASH: Final = "a" * 64

BAD: Final = {
    "name": "some",
    "version": "1.2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.3"], "aliases": ["CVE-1"]}],
}


def ended(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages})


def test_the_bill_has_every_package_of_the_lock_with_its_version_and_hashes() -> None:
    locked = re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", materials.LOCK.read_text("utf-8"), re.MULTILINE)
    made = {(one.name, one.version): one for one in materials.bill().components}
    assert made.keys() == set(locked)
    assert all(one.hashes and str(one.purl) == f"pkg:pypi/{one.name}@{one.version}" for one in made.values())


def test_the_same_lock_makes_the_same_components(tmp_path: Path) -> None:
    lock = tmp_path / "full.lock"
    lock.write_text(f"some==1.2 ; python_full_version < '3.14' \\\n    --hash=sha256:{HASH}\n    # via other\n")
    [found] = materials.bill(lock).components
    assert (found.name, found.version, [one.content for one in found.hashes]) == ("some", "1.2", [HASH])
    assert materials.bill(lock).components == materials.bill(lock).components


def test_a_known_vulnerability_is_a_failure_that_names_it_and_what_mends_it() -> None:
    assert materials.verdict(1, ended(BAD), "") == (
        False,
        "known to be vulnerable: some 1.2: PYSEC-1, mended in 1.3",
    )


@pytest.mark.parametrize("accepted", ["PYSEC-1", "CVE-1"])
def test_one_that_does_not_concern_us_is_accepted_by_any_of_its_names(
    accepted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materials, "ACCEPTED", {accepted: "we never call it"})
    assert materials.verdict(1, ended(BAD), "")[0]


@pytest.mark.parametrize(
    ("stdout", "stderr", "said"),
    [
        ("", "Traceback …\nConnectionError: the index cannot be reached", "not audited: ConnectionError"),
        (
            ended({"name": "some", "skip_reason": "?"}),
            "",
            "not audited: the package index says nothing about 1",
        ),
        (
            ended({"name": "some", "skip_reason": "?"}, {"name": "other", "version": "1", "vulns": []}),
            "",
            "audited 1 of 2 packages: no known",
        ),
    ],
)
def test_an_index_that_does_not_answer_is_said_and_fails_nothing(stdout: str, stderr: str, said: str) -> None:
    well, line = materials.verdict(1, stdout, stderr)
    assert well
    assert line.startswith(said)
    assert "\n" not in line
