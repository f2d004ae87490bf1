"""Fit columns that were read with the schema of their writer to the columns of a target.

The rules are those of the JSON format for the same values, so that a topic that changes its encoding fills the same
rows. Where the two differ it is said below. A value that does not fit refuses its record and no other.

* Names: a field of the writer fills the column of its name; `insensitive` and aliases as in `names.py`. Structs are
  fitted by the names of their fields, at any depth.
* Fields that no column takes are counted exactly, or refuse the record where they have a value. Unlike JSON a null
  there never refuses, because such a writer cannot leave a field out.
* `null` where none may be refuses with `null`, a column that the writer does not know and that needs a value with
  `missing`, two fields for one column with `duplicate`.
* Integers: from integers and decimals that are integers, in range (`overflow`, `precision`). Never from floats: JSON
  takes 5.0, but a writer that declares a float does not promise integers.
* Floats: from floats, rounded but never to infinity; from integers only where exact; from decimals, rounded, those
  without a scale only where exact. NaN and infinities, which JSON does not have, stay what they are.
* Decimals: from decimals, integers and texts with a number, exact in precision and scale. Never from floats, which hold
  no decimal fraction exactly.
* Booleans: from booleans.
* Timestamps: from timestamps of any unit (`timestamp` where the column's unit cannot reach it), without a zone as UTC;
  what is finer than the column is floored and noted; from dates as midnight UTC; from texts and numbers as in JSON,
  `--decode.epoch` included.
* Dates: from dates, and from texts of the form YYYY-MM-DD. Never from timestamps. Times of day: from times of day,
  finer ones floored and noted.
* Text: from text, enums and dictionaries; from UUIDs in their canonical form; from bytes that are UTF-8 (`encoding`);
  from dates, times and timestamps as ISO 8601, years 0 to 9999. From structs, lists and maps as compact JSON. From
  numbers and booleans, as in JSON, only with `--decode.text`.
* Bytes: from bytes of any kind, and from all that text is made of, as UTF-8. Bytes of a fixed size: from bytes and text
  of exactly that size (`length`).
* A column that keeps JSON as text takes everything, text in quotes.
* Lists: from lists of any kind, item by item. Maps: from maps, value by value, a key that is no text as its JSON text,
  a repeated key refused with `duplicate`.
* In JSON text: null members are kept, timestamps are ISO 8601, bytes have to be UTF-8, NaN and infinities refuse with
  `type`.
* Any other pair never fits: each record with a value there is refused with `type`, and one note says so.
"""

from batcher.formats.fit.fitter import Fitted, Fitter, fit
from batcher.formats.fit.targets import validate

__all__ = ["Fitted", "Fitter", "fit", "validate"]
