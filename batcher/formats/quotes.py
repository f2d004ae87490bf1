"""Write columns of text as JSON strings."""

from __future__ import annotations

import json
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json.syntax import quote

_ESCAPED: Final = r'[\x00-\x1f"\\]'


def quoted(texts: pa.StringArray) -> pa.StringArray:
    """Return texts in quotes, escaped where they have to be; null stays null."""
    special = pc.match_substring_regex(texts, _ESCAPED)
    if not pc.any(special).as_py():
        return pc.binary_join_element_wise('"', texts, '"', "")
    bare = pc.if_else(special, pa.scalar(None, pa.string()), texts)
    escaped = pa.array([quote(text) for text in texts.filter(special).to_pylist()], pa.string())
    return pc.replace_with_mask(pc.binary_join_element_wise('"', bare, '"', ""), pc.fill_null(special, False), escaped)


def unquoted(texts: pa.StringArray) -> pa.StringArray:
    """Return JSON texts with those that are strings as these strings; others, and nulls, stay what they are."""
    strings = pc.starts_with(texts, '"')
    if not strings.true_count:
        return texts
    bare = pa.array([json.loads(text) for text in texts.filter(strings).to_pylist()], pa.string())
    return pc.replace_with_mask(texts, pc.fill_null(strings, False), bare)
