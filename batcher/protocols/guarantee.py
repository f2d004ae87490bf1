"""What a pipeline promises about records that may come more than once."""

from __future__ import annotations

from typing import Literal

Guarantee = Literal["exactly-once", "at-least-once"]
