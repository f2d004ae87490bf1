//! Columns that grow value by value and can be cut back to the last good row.
//!
//! Laws:
//! * `len` is the number of values. While an object is read, a column of it that is longer than the object has had its
//!   field; that is how a key that occurs twice is seen.
//! * A column may be shorter than its object: what its last rows lack is added when it has a value again, or at the end,
//!   all at once. So an object that is absent costs one step, however many columns are in it.
//! * `cut(len)` undoes everything that was added since the column had that length, also half a value.
//! * A column that may not be null never has a null: below an object that is null it has a zero or nothing.

use crate::cursor::Key;
use crate::time::Clock;

/// What a text column takes.
#[derive(Clone, Copy, PartialEq)]
pub enum Takes {
    /// Strings.
    Text,
    /// Strings as they are, and any other value as its JSON text.
    Any,
    /// Any value as its JSON text.
    Json,
}

/// The values of a column, by their type.
pub enum Values {
    Null,
    Bool(Bits),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Decimal {
        precision: u32,
        scale: i32,
        values: Vec<i128>,
    },
    WideDecimal {
        precision: u32,
        scale: i32,
        values: Vec<[u64; 4]>,
    },
    Date(Vec<i32>),
    Time {
        clock: Clock,
        values: Vec<i64>,
    },
    /// `large`: 64-bit offsets, made when the column is handed out.
    Text {
        takes: Takes,
        large: bool,
        ends: Vec<i32>,
        bytes: Vec<u8>,
    },
    List {
        ends: Vec<i32>,
        items: Box<Column>,
    },
    Map {
        ends: Vec<i32>,
        keys: Box<Column>,
        values: Box<Column>,
    },
    Struct(Box<Object>),
}

/// Do the same with the vector of every type that has one value in a place of its own.
macro_rules! each_vector {
    ($values:expr, $vector:ident => $done:expr, _ => $rest:expr) => {
        match $values {
            Values::I8($vector) => $done,
            Values::I16($vector) => $done,
            Values::I32($vector) => $done,
            Values::I64($vector) => $done,
            Values::U8($vector) => $done,
            Values::U16($vector) => $done,
            Values::U32($vector) => $done,
            Values::U64($vector) => $done,
            Values::F32($vector) => $done,
            Values::F64($vector) => $done,
            Values::Decimal { values: $vector, .. } => $done,
            Values::WideDecimal { values: $vector, .. } => $done,
            Values::Date($vector) => $done,
            Values::Time { values: $vector, .. } => $done,
            _ => $rest,
        }
    };
}
pub(crate) use each_vector;

/// One column.
pub struct Column {
    pub nullable: bool,
    pub len: usize,
    pub nulls: usize,
    /// Absent while there is no null.
    pub validity: Option<Bits>,
    pub values: Values,
}

impl Column {
    pub fn new(nullable: bool, values: Values) -> Column {
        Column { nullable, len: 0, nulls: 0, validity: None, values }
    }

    /// Count a value that has just been written.
    #[inline(always)]
    pub fn count(&mut self) {
        self.len += 1;
        if let Some(bits) = &mut self.validity {
            bits.push(true);
        }
    }

    /// Add a null; the caller has seen that the column may have one.
    #[inline(never)]
    pub fn push_null(&mut self) {
        self.lack(1);
    }

    /// Add what stands for nothing in so many rows: nulls, or below an object that is null, where none may be, zeros.
    fn lack(&mut self, rows: usize) {
        if self.nullable {
            self.validity.get_or_insert_with(|| Bits::ones(self.len)).extend(false, rows);
            self.nulls += rows;
        } else if let Some(bits) = &mut self.validity {
            bits.extend(true, rows);
        }
        self.len += rows;
        self.fill(rows);
    }

    /// Bring the column to a length that it may be short of.
    #[cold]
    pub fn catch_up(&mut self, len: usize) {
        if self.len < len {
            self.lack(len - self.len);
        }
    }

    /// Bring the column, and all that is in it, to their lengths.
    fn finish(&mut self, len: usize) {
        self.catch_up(len);
        match &mut self.values {
            Values::List { items, .. } => items.finish(items.len),
            Values::Map { values, .. } => values.finish(values.len),
            Values::Struct(object) => object.finish(),
            _ => {}
        }
    }

    /// Write values that mean nothing.
    fn fill(&mut self, rows: usize) {
        each_vector!(&mut self.values, vector => vector.resize(vector.len() + rows, Default::default()), _ => {
            match &mut self.values {
                Values::Bool(bits) => bits.extend(false, rows),
                Values::Text { ends, .. } | Values::List { ends, .. } | Values::Map { ends, .. } => {
                    ends.resize(ends.len() + rows, ends.last().copied().unwrap_or(0));
                }
                Values::Struct(object) => object.len += rows,
                _ => {}
            }
        })
    }

    pub fn cut(&mut self, len: usize) {
        each_vector!(&mut self.values, vector => vector.truncate(len), _ => match &mut self.values {
            Values::Bool(bits) => bits.truncate(len),
            // Half a value may lie behind the last end.
            Values::Text { ends, bytes, .. } => bytes.truncate(cut_ends(ends, len)),
            Values::List { ends, items } => items.cut(cut_ends(ends, len)),
            Values::Map { ends, keys, values } => {
                let entries = cut_ends(ends, len);
                keys.cut(entries);
                values.cut(entries);
            }
            // Its columns may be further than it is.
            Values::Struct(object) => object.cut(len),
            _ => {}
        });
        if let Some(bits) = &mut self.validity {
            self.nulls -= (len..bits.len).filter(|row| !bits.get(*row)).count();
            bits.truncate(len);
        }
        self.len = self.len.min(len);
    }

    /// Make room for rows, so that less is copied while they come.
    pub fn reserve(&mut self, rows: usize) {
        each_vector!(&mut self.values, vector => vector.reserve(rows), _ => match &mut self.values {
            Values::Text { ends, .. } | Values::List { ends, .. } | Values::Map { ends, .. } => ends.reserve(rows),
            Values::Struct(object) => object.columns.iter_mut().for_each(|column| column.reserve(rows)),
            _ => {}
        })
    }
}

/// Keep the ends of `len` values, which begin with a zero; return the last.
fn cut_ends(ends: &mut Vec<i32>, len: usize) -> usize {
    ends.truncate(len + 1);
    ends.last().copied().unwrap_or(0) as usize
}

/// The fields of an object, found by name.
pub struct Object {
    /// Its number among the objects of the schema.
    pub number: usize,
    pub keys: Vec<Key>,
    pub columns: Vec<Column>,
    pub len: usize,
    /// How many columns may not be null.
    pub required: usize,
    names: Vec<Box<[u8]>>,
    insensitive: bool,
    slots: Vec<usize>,
    /// For each column, the one whose key came behind its own the last time; the last entry is for the first key.
    pub after: Vec<usize>,
}

const FREE: usize = usize::MAX;

impl Object {
    pub fn new(number: usize, fields: Vec<(String, Column)>, insensitive: bool) -> Object {
        let mut object = Object {
            number,
            keys: fields.iter().map(|(name, _)| Key::new(name)).collect(),
            names: fields.iter().map(|(name, _)| name.as_bytes().into()).collect(),
            after: (1..=fields.len()).chain([0]).collect(),
            required: fields.iter().filter(|(_, column)| !column.nullable).count(),
            slots: vec![FREE; (fields.len() * 2 + 1).next_power_of_two()],
            columns: fields.into_iter().map(|(_, column)| column).collect(),
            len: 0,
            insensitive,
        };
        for index in 0..object.names.len() {
            let mut slot = object.slot(&object.names[index]);
            while object.slots[slot] != FREE {
                slot = (slot + 1) % object.slots.len();
            }
            object.slots[slot] = index;
        }
        object
    }

    /// The column that a key fills.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let mut slot = self.slot(key);
        let mut folded = None;
        loop {
            match self.slots[slot] {
                FREE => return folded,
                index if *self.names[index] == *key => return Some(index),
                index if self.insensitive && self.names[index].eq_ignore_ascii_case(key) => folded = Some(index),
                _ => {}
            }
            slot = (slot + 1) % self.slots.len();
        }
    }

    /// Where the search for a name begins; the same for all its spellings where their case does not count.
    fn slot(&self, name: &[u8]) -> usize {
        let fold = self.insensitive;
        let byte = |byte: u8| if fold { byte.to_ascii_lowercase() } else { byte };
        let hash =
            name.iter().fold(name.len() as u64, |hash, one| (hash ^ byte(*one) as u64).wrapping_mul(0x100_0000_01b3));
        (hash ^ hash >> 29) as usize % self.slots.len()
    }

    pub fn cut(&mut self, len: usize) {
        self.columns.iter_mut().for_each(|column| column.cut(len));
        self.len = self.len.min(len);
    }

    /// Bring all columns to the length of the object, once everything is read.
    pub fn finish(&mut self) {
        self.columns.iter_mut().for_each(|column| column.finish(self.len));
    }
}

/// Bits in Arrow's order.
#[derive(Default)]
pub struct Bits {
    pub bytes: Vec<u8>,
    pub len: usize,
}

impl Bits {
    pub fn ones(len: usize) -> Bits {
        let mut bits = Bits { bytes: vec![0xff; len / 8], len: len / 8 * 8 };
        while bits.len < len {
            bits.push(true);
        }
        bits
    }

    #[inline(always)]
    pub fn push(&mut self, bit: bool) {
        match self.bytes.last_mut() {
            Some(last) if !self.len.is_multiple_of(8) => *last |= (bit as u8) << (self.len % 8),
            _ => self.bytes.push(bit as u8),
        }
        self.len += 1;
    }

    /// Push the same bit so many times.
    pub fn extend(&mut self, bit: bool, count: usize) {
        let end = self.len + count;
        while self.len < end && !self.len.is_multiple_of(8) {
            self.push(bit);
        }
        let whole = (end - self.len) / 8;
        self.bytes.resize(self.bytes.len() + whole, if bit { 0xff } else { 0 });
        self.len += whole * 8;
        while self.len < end {
            self.push(bit);
        }
    }

    pub fn get(&self, at: usize) -> bool {
        self.bytes[at / 8] >> (at % 8) & 1 == 1
    }

    pub fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        self.len = len;
        self.bytes.truncate(len.div_ceil(8));
        if let Some(last) = self.bytes.last_mut().filter(|_| !len.is_multiple_of(8)) {
            *last &= (1 << (len % 8)) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_were_cut_do_not_come_back() {
        let mut bits = Bits::ones(13);
        bits.push(false);
        bits.truncate(10);
        assert_eq!(bits.bytes, [0xff, 0b11]);
        bits.push(false);
        bits.push(true);
        assert_eq!((bits.bytes.as_slice(), bits.len), (&[0xff, 0b1011][..], 12));
    }

    #[test]
    fn many_bits_at_once_are_as_many_one_by_one() {
        for (before, count) in [(0, 0), (3, 2), (3, 5), (3, 30), (8, 8), (7, 1), (9, 100)] {
            for bit in [false, true] {
                let (mut at_once, mut singly) = (Bits::ones(before), Bits::ones(before));
                at_once.extend(bit, count);
                (0..count).for_each(|_| singly.push(bit));
                assert_eq!((at_once.bytes, at_once.len), (singly.bytes, singly.len), "{before} {count}");
            }
        }
    }

    #[test]
    fn what_is_short_of_its_object_has_nulls_at_the_end_and_zeros_where_none_may_be() {
        let inner = vec![
            ("a".into(), Column::new(true, Values::I64(vec![]))),
            ("b".into(), Column::new(false, Values::Bool(Bits::default()))),
        ];
        let column = Column::new(true, Values::Struct(Box::new(Object::new(1, inner, false))));
        let mut object = Object::new(0, vec![("o".into(), column)], false);
        object.len = 3;
        object.finish();
        let Values::Struct(inner) = &object.columns[0].values else { panic!() };
        assert_eq!((object.columns[0].nulls, inner.len, inner.required), (3, 3, 1));
        assert_eq!(inner.columns.iter().map(|one| (one.len, one.nulls)).collect::<Vec<_>>(), [(3, 3), (3, 0)]);
    }

    #[test]
    fn a_key_finds_its_column_and_no_other() {
        let columns =
            |names: &[&str]| names.iter().map(|name| (name.to_string(), Column::new(true, Values::Null))).collect();
        let exact = Object::new(0, columns(&["id", "Id", "name", ""]), false);
        assert_eq!(
            ["id", "Id", "name", "", "ID"].map(|key| exact.find(key.as_bytes())),
            [Some(0), Some(1), Some(2), Some(3), None]
        );
        let folded = Object::new(0, columns(&["userId", "ä"]), true);
        assert_eq!(
            ["USERID", "userId", "ä", "Ä"].map(|key| folded.find(key.as_bytes())),
            [Some(0), Some(0), Some(1), None]
        );
    }
}
