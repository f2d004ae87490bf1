"""Write what the product is made of, and ask the package index whether any of it is known to be vulnerable.

    python deploy/materials.py             write build/sbom.cdx.json, ask, and end with 1 where something is vulnerable
    python deploy/materials.py --offline   write it only

The bill of materials is in the format of CycloneDX and comes from the lock, so it needs no network. Where the index
does not answer, or does not say, that is one line and no failure: a build without a network has to work.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from pip_requirements_parser import RequirementsFile

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements" / "full.lock"
"""What users may install: the product with every extra."""

BILL: Final = ROOT / "build" / "sbom.cdx.json"

WAIT_S: Final = 5
"""For one answer of the index."""

PATIENCE_S: Final = 120
"""For all of them."""

ACCEPTED: Final[Mapping[str, str]] = {}
"""Vulnerabilities that are known and do not concern us, by their id, each with the reason."""


def bill(lock: Path = LOCK) -> Bom:
    """Return the bill of materials of a lock: each package with its version, address and the hashes of its files."""
    made = Bom()
    made.metadata.component = Component(name="kafka-batcher", type=ComponentType.APPLICATION, bom_ref="kafka-batcher")
    for one in RequirementsFile.from_file(str(lock)).requirements:
        version = str(one.get_pinned_version)
        address = PackageURL("pypi", name=one.name, version=version)
        found = Component(
            name=one.name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=address.to_string(),
            purl=address,
            # A package has one hash for each of its files; CycloneDX takes several of one kind.
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=text.split(":")[1]) for text in _hashes(one)],
        )
        made.components.add(found)
    made.register_dependency(made.metadata.component, made.components)
    return made


def _hashes(requirement: Any) -> Sequence[str]:
    return [text.partition("=")[2] if "=" in text else text for text in requirement.hash_options]


def verdict(code: int, stdout: str, stderr: str) -> tuple[bool, str]:
    """Return whether all is well, and one line to say it, from how pip-audit ended."""
    try:
        packages: list[dict[str, Any]] = json.loads(stdout)["dependencies"]
    except (ValueError, KeyError):
        return True, f"not audited: {_last_line(stderr) or f'pip-audit ended with {code}'}"
    vulnerable = {
        f"{one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}"
        for one in packages
        for found in one.get("vulns", ())
        if not {found["id"], *found.get("aliases", ())} & ACCEPTED.keys()
    }
    if vulnerable:
        return False, "known to be vulnerable: " + "; ".join(sorted(vulnerable))
    asked = sum("vulns" in one for one in packages)
    if not asked:
        return True, f"not audited: the package index says nothing about {len(packages)} packages"
    return True, f"audited {asked} of {len(packages)} packages: no known vulnerability"


def _last_line(text: str) -> str:
    return next((line.strip()[:200] for line in reversed(text.splitlines()) if line.strip()), "")


def audit(lock: Path = LOCK) -> tuple[bool, str]:
    """Ask about each package of a lock; return whether all is well, and one line to say it."""
    flags = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--timeout", str(WAIT_S), "-f", "json"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *flags, "-r", str(lock)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True, f"not audited: the package index took more than {PATIENCE_S} s"
    return verdict(done.returncode, done.stdout, done.stderr)


def main(words: Sequence[str]) -> int:
    """Write the bill, audit, and return the exit code."""
    BILL.parent.mkdir(exist_ok=True)
    made = bill()
    BILL.write_text(JsonV1Dot6(made).output_as_string(indent=1), encoding="utf-8")
    print(f"bill of materials: {len(made.components)} packages in {BILL.relative_to(ROOT)}")
    well, said = (True, "not audited: --offline") if "--offline" in words else audit()
    print(said)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
