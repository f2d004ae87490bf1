"""The pages for people, and the code that they show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
DOCS: Final = ROOT / "docs"


def code_blocks(page: Path, *languages: str) -> Sequence[tuple[str, str]]:
    """Return the fenced blocks of these languages in their order, each with its language."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, block) for language, block in found if language in languages]


def named_in(page: Path, name: str) -> Any:
    """Return what the one block of Python that a page has defines under a name."""
    ((_, block),) = code_blocks(page, "python")
    defined: dict[str, Any] = {}
    exec(compile(block, page, "exec"), defined)
    return defined[name]
