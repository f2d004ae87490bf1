"""What holds for every room of the house, so that a stranger finds his way."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONG = 350
MODULES = {file: file.read_text() for package in ("batcher", "sinks") for file in (ROOT / package).rglob("*.py")}


def test_a_module_that_is_long_says_why() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file, text in MODULES.items()
        if len(text.splitlines()) > LONG and "is long" not in (ast.get_docstring(ast.parse(text)) or "")
    ]
    assert silent == []


def test_the_name_of_a_class_is_unique() -> None:
    places = defaultdict(list)
    for file, text in MODULES.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(file.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
