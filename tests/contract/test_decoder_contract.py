"""Laws for every format there is: found through `batcher.formats`, not listed here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from batcher.formats import registry
from batcher.settings.model import Decode
from batcher.testing.contract.format import FormatCase, FormatLaws

ENCODE: dict[str, Callable[[dict[str, Any]], bytes]] = {"json": lambda row: json.dumps(row).encode()}
"""How a test writes a record in each format. A new format fails here until it says how."""


OPTIONS: dict[str, list[Any]] = {"json": [Decode(), Decode(text=("any",), epoch=("ms",)), Decode(on_unknown="reject")]}
"""What each format is tried with."""


class TestEveryFormat(FormatLaws):
    @pytest.fixture(params=[(name, number) for name in registry.names() for number in range(3)])
    def case(self, request: pytest.FixtureRequest) -> FormatCase:
        name, number = request.param
        return FormatCase(registry.load(name)(OPTIONS[name][number]), ENCODE[name])
