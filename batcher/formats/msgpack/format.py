"""MessagePack records: one map a message, turned into JSON text and read by the JSON decoder with all its rules."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from batcher.formats.json.format import JsonDecoder, JsonFormat, JsonOptions
from batcher.formats.json.limits import Refused
from batcher.formats.msgpack.transcode import to_json
from batcher.formats.translation import Translated, decoded, inner_options, translated
from batcher.records import Batch, Decoded


class MsgpackFormat:
    """Make decoders for MessagePack maps (`protocols.Format`)."""

    def __init__(self, options: JsonOptions = JsonOptions()) -> None:  # noqa: B008 - frozen
        self._options = options
        self._json = JsonFormat(inner_options(options))

    def infer(self, batch: Batch) -> pa.Schema | None:
        return self._json.infer(_translated(batch, self._options).batch)

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        return self._json.grow(schema, _translated(batch, self._options).batch)

    def proposed(self, batch: Batch, names: Collection[str]) -> pa.Schema:
        return self._json.proposed(_translated(batch, self._options).batch, names)

    def decoder(self, schema: pa.Schema) -> MsgpackDecoder:
        return MsgpackDecoder(self._json.decoder(schema), self._options)


class MsgpackDecoder:
    """Decode MessagePack maps into one schema (`protocols.Decoder`). Not for several threads at once."""

    def __init__(self, json: JsonDecoder, options: JsonOptions) -> None:
        self._json = json
        self._options = options

    @property
    def schema(self) -> pa.Schema:
        return self._json.schema

    def decode(self, batch: Batch) -> Decoded:
        return decoded(_translated(batch, self._options), self._json)


def _translated(batch: Batch, options: JsonOptions) -> Translated:
    def translate(values: pa.BinaryArray) -> tuple[pa.BinaryArray, dict[int, Refused]]:
        refused: dict[int, Refused] = {}
        texts: list[bytes | None] = []
        for row, raw in enumerate(values.to_pylist()):
            try:
                texts.append(to_json(raw, options.max_depth))
            except Refused as why:
                texts.append(None)
                refused[row] = why.kept()
        return pa.array(texts, pa.binary()), refused

    return translated(batch, options, translate)
