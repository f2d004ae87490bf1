//! One message after the other into columns.
//!
//! Laws:
//! * A row is in the columns whole or not at all. What becomes of a message depends on nothing but the message.
//! * A message that is not plainly right is left to the Python reference (`batcher/formats/json/strict.py`), which alone
//!   refuses. So a doubt costs time, never a record, and every reason and message is worded in one place.
//! * What is accepted has the value that the reference gives it.
//! * Recursion is bounded by `MAX_DEPTH`.
//!
//! It is long because the values of all types are one table of functions that call each other.

use crate::column::{Column, Object, Takes, Values};
use crate::cursor::{Cursor, Res, Suspect};
use crate::escape::{quote, unescape};
use crate::time::{self, Notes};
use crate::unknown::Unknown;

/// The deepest nesting that may be allowed; each level takes less than a kilobyte of the stack.
pub const MAX_DEPTH: u32 = 128;

/// What to do with a field that no column takes.
#[derive(Clone, Copy, PartialEq)]
pub enum OnUnknown {
    Skip,
    Count,
    /// Leave the message to the reference.
    Suspect,
}

/// What is accepted.
pub struct Limits {
    pub max_bytes: usize,
    pub max_depth: u32,
    pub on_unknown: OnUnknown,
}

/// Reads messages of one schema.
pub struct Reader {
    pub root: Object,
    pub unknown: Unknown,
    pub notes: Notes,
    limits: Limits,
    scratch: Vec<u8>,
}

impl Reader {
    pub fn new(root: Object, limits: Limits) -> Reader {
        let max_depth = limits.max_depth.min(MAX_DEPTH);
        Reader {
            root,
            unknown: Unknown::default(),
            notes: Notes::default(),
            limits: Limits { max_depth, ..limits },
            scratch: vec![],
        }
    }

    /// Read the message with which `room` begins into the columns, or leave them as they are.
    pub fn read(&mut self, room: &[u8], length: usize, row: usize) -> Res<()> {
        let before = self.root.len;
        let mut parser = Parser {
            cursor: Cursor::new(room, length),
            limits: &self.limits,
            unknown: &mut self.unknown,
            notes: &mut self.notes,
            scratch: &mut self.scratch,
        };
        let done = if length > self.limits.max_bytes { Err(Suspect) } else { parser.document(&mut self.root) };
        match done {
            Ok(()) => {
                self.unknown.keep(row);
                self.notes.keep();
            }
            Err(Suspect) => {
                self.root.cut(before);
                self.unknown.forget();
                self.notes.forget();
            }
        }
        done
    }
}

struct Parser<'a, 'b> {
    cursor: Cursor<'a>,
    limits: &'b Limits,
    unknown: &'b mut Unknown,
    notes: &'b mut Notes,
    /// What the last string with escapes says.
    scratch: &'b mut Vec<u8>,
}

/// What a key is.
enum Found {
    Column(usize),
    Unknown,
}

impl Parser<'_, '_> {
    fn document(&mut self, root: &mut Object) -> Res<()> {
        self.cursor.space();
        self.object(root, 1)?;
        self.cursor.space();
        if self.cursor.at_end() { Ok(()) } else { Err(Suspect) }
    }

    fn deeper(&self, depth: u32) -> Res<u32> {
        if depth < self.limits.max_depth { Ok(depth + 1) } else { Err(Suspect) }
    }

    fn object(&mut self, object: &mut Object, depth: u32) -> Res<()> {
        let row = object.len;
        let (mut required, noted) = (0, self.unknown.noted());
        let mut last = object.columns.len();
        let mut more = self.cursor.open(b'{')?;
        while more {
            match self.key(object, last, noted)? {
                Found::Column(index) => {
                    self.cursor.colon()?;
                    let column = &mut object.columns[index];
                    if column.len != row {
                        if column.len > row {
                            return Err(Suspect); // the key has been here before
                        }
                        column.catch_up(row);
                    }
                    required += !column.nullable as usize;
                    self.value(column, depth)?;
                    last = index;
                }
                Found::Unknown => {
                    self.cursor.colon()?;
                    self.skip(depth)?;
                }
            }
            more = self.cursor.more(b'}')?;
        }
        if required < object.required {
            return Err(Suspect);
        }
        object.len = row + 1;
        Ok(())
    }

    /// Which column the key here is. Most messages have theirs in the order of the one before.
    #[inline(always)]
    fn key(&mut self, object: &mut Object, last: usize, noted: usize) -> Res<Found> {
        let next = object.after[last];
        if object.keys.get(next).is_some_and(|key| self.cursor.key(key)) {
            return Ok(Found::Column(next));
        }
        self.other_key(object, last, noted)
    }

    #[inline(never)]
    fn other_key(&mut self, object: &mut Object, last: usize, noted: usize) -> Res<Found> {
        let text = self.cursor.text()?;
        let name = if text.escaped {
            self.scratch.clear();
            unescape(text.raw, self.scratch)?;
            &self.scratch[..]
        } else {
            text.raw
        };
        if let Some(index) = object.find(name) {
            object.after[last] = index;
            return Ok(Found::Column(index));
        }
        match self.limits.on_unknown {
            OnUnknown::Suspect => return Err(Suspect),
            OnUnknown::Count => {
                let place = self.cursor.place();
                self.cursor.colon()?;
                if self.cursor.peek() != b'n' {
                    self.unknown.note(object.number, name);
                } else if self.unknown.noted() > noted {
                    self.unknown.withdraw(object.number, name, noted);
                }
                self.cursor.back_to(place);
            }
            OnUnknown::Skip => {}
        }
        Ok(Found::Unknown)
    }

    #[inline(always)]
    fn value(&mut self, column: &mut Column, depth: u32) -> Res<()> {
        let first = self.cursor.peek();
        if first == b'n' {
            self.cursor.word(b"null")?;
            if !column.nullable {
                return Err(Suspect);
            }
            column.push_null();
            return Ok(());
        }
        match &mut column.values {
            Values::Text { takes: Takes::Text, ends, bytes, .. } => {
                self.cursor.text_into(bytes)?;
                ends.push(bytes.len() as i32);
            }
            Values::I64(values) => values.push(self.integer()?),
            Values::F64(values) => values.push(self.cursor.number()?.f64().ok_or(Suspect)?),
            Values::Bool(bits) => {
                let value = first == b't';
                self.cursor.word(if value { b"true" } else { b"false" })?;
                bits.push(value);
            }
            Values::Time { clock, values, .. } => {
                let point = if first == b'"' {
                    let text = self.cursor.text()?;
                    // A time with escapes is left to the reference.
                    if text.escaped { None } else { clock.text(text.raw, self.notes) }
                } else {
                    clock.count(&self.cursor.number()?, self.notes)
                };
                values.push(point.ok_or(Suspect)?);
            }
            rarer => self.rarer(rarer, first, depth)?,
        }
        column.count();
        Ok(())
    }

    #[inline(never)]
    fn rarer(&mut self, values: &mut Values, first: u8, depth: u32) -> Res<()> {
        match values {
            Values::I8(values) => values.push(self.integer()?),
            Values::I16(values) => values.push(self.integer()?),
            Values::I32(values) => values.push(self.integer()?),
            Values::U8(values) => values.push(self.integer()?),
            Values::U16(values) => values.push(self.integer()?),
            Values::U32(values) => values.push(self.integer()?),
            Values::U64(values) => values.push(self.integer()?),
            Values::F32(values) => values.push(self.cursor.number()?.f32().ok_or(Suspect)?),
            Values::Date(values) => {
                let text = self.cursor.text()?;
                values.push(time::of_date(text.raw).ok_or(Suspect)?);
            }
            Values::Decimal { precision, scale, values } => {
                let number = if first == b'"' { self.cursor.quoted_number()? } else { self.cursor.number()? };
                values.push(number.decimal(*precision, *scale).ok_or(Suspect)?);
            }
            Values::WideDecimal { precision, scale, values } => {
                let number = if first == b'"' { self.cursor.quoted_number()? } else { self.cursor.number()? };
                values.push(number.decimal_wide(*precision, *scale).ok_or(Suspect)?);
            }
            Values::Text { takes: Takes::Any, ends, bytes, .. } if first == b'"' => {
                self.cursor.text_into(bytes)?;
                ends.push(bytes.len() as i32);
            }
            Values::Text { ends, bytes, .. } => {
                self.json(bytes, depth)?;
                ends.push(bytes.len() as i32);
            }
            Values::List { ends, items } => {
                let depth = self.deeper(depth)?;
                let mut more = self.cursor.open(b'[')?;
                while more {
                    self.value(items, depth)?;
                    more = self.cursor.more(b']')?;
                }
                ends.push(items.len as i32);
            }
            Values::Map { ends, keys, values } => {
                let depth = self.deeper(depth)?;
                self.map(keys, values, depth)?;
                ends.push(keys.len as i32);
            }
            Values::Struct(object) => {
                let depth = self.deeper(depth)?;
                self.object(object, depth)?;
            }
            _ => return Err(Suspect),
        }
        Ok(())
    }

    #[inline(always)]
    fn integer<T: TryFrom<u64> + TryFrom<i128>>(&mut self) -> Res<T> {
        let number = self.cursor.number()?;
        let value = number.whole().ok_or(Suspect)?;
        if number.negative {
            return T::try_from(-(value as i128)).map_err(|_| Suspect);
        }
        T::try_from(value).map_err(|_| Suspect)
    }

    fn map(&mut self, keys: &mut Column, values: &mut Column, depth: u32) -> Res<()> {
        let first = keys.len;
        let mut more = self.cursor.open(b'{')?;
        while more {
            let Values::Text { ends, bytes, .. } = &mut keys.values else { return Err(Suspect) };
            self.cursor.text_into(bytes)?;
            ends.push(bytes.len() as i32);
            keys.count();
            self.cursor.colon()?;
            self.value(values, depth)?;
            more = self.cursor.more(b'}')?;
        }
        let Values::Text { ends, bytes, .. } = &keys.values else { return Err(Suspect) };
        all_different(ends[first..].windows(2).map(|pair| &bytes[pair[0] as usize..pair[1] as usize]).collect())
    }

    /// Pass over a value that nobody wants, as strictly as over any other.
    fn skip(&mut self, depth: u32) -> Res<()> {
        match self.cursor.peek() {
            b'"' => self.cursor.skip_text(),
            b'{' => {
                let depth = self.deeper(depth)?;
                let mut more = self.cursor.open(b'{')?;
                while more {
                    self.cursor.skip_text()?;
                    self.cursor.colon()?;
                    self.skip(depth)?;
                    more = self.cursor.more(b'}')?;
                }
                Ok(())
            }
            b'[' => {
                let depth = self.deeper(depth)?;
                let mut more = self.cursor.open(b'[')?;
                while more {
                    self.skip(depth)?;
                    more = self.cursor.more(b']')?;
                }
                Ok(())
            }
            b't' => self.cursor.word(b"true"),
            b'f' => self.cursor.word(b"false"),
            b'n' => self.cursor.word(b"null"),
            _ => self.cursor.number().map(|_| ()),
        }
    }

    /// Write a value as JSON without spaces, numbers as they are; a key that occurs twice is suspect.
    fn json(&mut self, out: &mut Vec<u8>, depth: u32) -> Res<()> {
        match self.cursor.peek() {
            b'"' => self.json_text(out),
            b'{' => {
                let depth = self.deeper(depth)?;
                let mut keys = Vec::new();
                out.push(b'{');
                let mut more = self.cursor.open(b'{')?;
                while more {
                    let start = out.len();
                    self.json_text(out)?;
                    keys.push(start..out.len());
                    self.cursor.colon()?;
                    out.push(b':');
                    self.json(out, depth)?;
                    more = self.cursor.more(b'}')?;
                    out.push(if more { b',' } else { b'}' });
                }
                if keys.is_empty() {
                    out.push(b'}');
                }
                all_different(keys.into_iter().map(|key| &out[key]).collect())
            }
            b'[' => {
                let depth = self.deeper(depth)?;
                out.push(b'[');
                let mut more = self.cursor.open(b'[')?;
                if !more {
                    out.push(b']');
                }
                while more {
                    self.json(out, depth)?;
                    more = self.cursor.more(b']')?;
                    out.push(if more { b',' } else { b']' });
                }
                Ok(())
            }
            _ => {
                let first = self.cursor.place();
                self.skip(depth)?;
                out.extend_from_slice(self.cursor.since(first));
                Ok(())
            }
        }
    }

    fn json_text(&mut self, out: &mut Vec<u8>) -> Res<()> {
        let text = self.cursor.text()?;
        if !text.escaped {
            out.push(b'"');
            out.extend_from_slice(text.raw);
            out.push(b'"');
            return Ok(());
        }
        self.scratch.clear();
        unescape(text.raw, self.scratch)?;
        quote(self.scratch, out);
        Ok(())
    }
}

fn all_different(mut keys: Vec<&[u8]>) -> Res<()> {
    let twice = if keys.len() <= 8 {
        (1..keys.len()).any(|index| keys[..index].contains(&keys[index]))
    } else {
        keys.sort_unstable();
        keys.windows(2).any(|pair| pair[0] == pair[1])
    };
    if twice { Err(Suspect) } else { Ok(()) }
}
