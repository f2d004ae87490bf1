"""CSV: one line a message, without a header, its fields in the order of the columns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from batcher.options import Flag, Names, Section
from batcher.plugins import PluginContext, takes
from batcher.settings.model import Decode

if TYPE_CHECKING:
    from batcher.protocols import Format


class CsvSection(Section):
    """Lines of fields, without a header."""

    columns: Annotated[Names, Flag(metavar="COLUMN[,…]")] = ()
    """What the fields are, from left to right; when it is not given, the columns of the target in their order."""
    delimiter: Annotated[str, Flag(metavar="CHARACTER|tab")] = ","
    """What stands between two fields."""
    quote: Annotated[str, Flag(metavar="CHARACTER|none")] = '"'
    """What stands around a field with delimiters, quotes or line ends in it; a quote inside is doubled."""
    null: Annotated[str, Flag(metavar="TEXT")] = ""
    """The field without quotes that means null."""


@takes(CsvSection, section="csv")
def plugin(options: CsvSection, *, context: PluginContext) -> Format:
    """Return the format. Raise ConfigurationError. Nothing heavy is imported before this is called."""
    from batcher.formats.delimited.format import CsvFormat, CsvOptions  # noqa: PLC0415 - as said above
    from batcher.formats.json import options_of  # noqa: PLC0415 - as said above

    return CsvFormat(
        CsvOptions(
            columns=tuple(options.columns),
            delimiter="\t" if options.delimiter == "tab" else options.delimiter,
            quote="" if options.quote == "none" else options.quote,
            null=options.null,
            # A field is text already: which columns take any JSON value means nothing here.
            json=replace(options_of(context.section(Decode)), text=frozenset()),
        )
    )
