//! The columns of a schema, out of what Python says about them (`batcher/formats/json/native.py`).
//!
//! Laws: what is not known here is an error, never a guess. Then the whole schema is read by Python.

use crate::column::{Bits, Column, Object, Takes, Values};
use crate::time::{Clock, Epoch};

/// One field: name, path, whether it may be null, kind, what the kind needs to know, and the fields inside.
#[cfg_attr(feature = "python", derive(pyo3::FromPyObject))]
pub struct Field(pub String, pub String, pub bool, pub String, pub Vec<i64>, pub Vec<Field>);

/// What is the same for all columns.
pub struct Planner {
    pub insensitive: bool,
    /// The path of each object, in the order of their numbers.
    pub objects: Vec<String>,
    /// The path of each column of times, in the order of theirs.
    pub times: Vec<String>,
}

impl Planner {
    pub fn object(&mut self, path: &str, fields: Vec<Field>) -> Result<Object, String> {
        let number = self.objects.len();
        self.objects.push(path.into());
        let columns = fields.into_iter().map(|field| Ok((field.0.clone(), self.column(field)?)));
        let columns = columns.collect::<Result<_, String>>()?;
        Ok(Object::new(number, columns, self.insensitive))
    }

    fn column(&mut self, field: Field) -> Result<Column, String> {
        let Field(_, path, nullable, kind, numbers, mut inner) = field;
        let mut next = |planner: &mut Self| match inner.is_empty() {
            true => Err(format!("{path}: {kind} of nothing")),
            false => planner.column(inner.remove(0)).map(Box::new),
        };
        let values = match (kind.as_str(), &numbers[..]) {
            ("null", []) => Values::Null,
            ("bool", []) => Values::Bool(Bits::default()),
            ("int", [8]) => Values::I8(vec![]),
            ("int", [16]) => Values::I16(vec![]),
            ("int", [32]) => Values::I32(vec![]),
            ("int", [64]) => Values::I64(vec![]),
            ("uint", [8]) => Values::U8(vec![]),
            ("uint", [16]) => Values::U16(vec![]),
            ("uint", [32]) => Values::U32(vec![]),
            ("uint", [64]) => Values::U64(vec![]),
            ("float", [32]) => Values::F32(vec![]),
            ("float", [64]) => Values::F64(vec![]),
            ("decimal", &[precision @ 1..=38, scale @ -99..=99, 128]) => {
                Values::Decimal { precision: precision as u32, scale: scale as i32, values: vec![] }
            }
            ("decimal", &[precision @ 1..=76, scale @ -99..=99, 256]) => {
                Values::WideDecimal { precision: precision as u32, scale: scale as i32, values: vec![] }
            }
            ("date", []) => Values::Date(vec![]),
            ("time", &[digits @ (0 | 3 | 6 | 9), epoch]) => {
                let epoch = match epoch {
                    -1 => Epoch::Auto,
                    -2 => Epoch::Unstated,
                    0 | 3 | 6 | 9 => Epoch::Unit(epoch as u32),
                    _ => return Err(format!("{path}: epoch {epoch}")),
                };
                self.times.push(path);
                Values::Time { clock: Clock::new(self.times.len() - 1, digits as u32, epoch), values: vec![] }
            }
            ("text", &[large @ 0..=1]) => text(Takes::Text, large),
            ("any", &[large @ 0..=1]) => text(Takes::Any, large),
            ("json", &[large @ 0..=1]) => text(Takes::Json, large),
            ("list", []) => Values::List { ends: vec![0], items: next(self)? },
            ("map", []) => Values::Map { ends: vec![0], keys: next(self)?, values: next(self)? },
            ("struct", []) if !inner.is_empty() => Values::Struct(Box::new(self.object(&path, inner)?)),
            _ => return Err(format!("{path}: {kind} {numbers:?}")),
        };
        if let Values::Map { keys, .. } = &values {
            if !matches!(keys.values, Values::Text { takes: Takes::Text, .. }) {
                return Err("a map whose keys are no text".into());
            }
        }
        Ok(Column::new(nullable, values))
    }
}

fn text(takes: Takes, large: i64) -> Values {
    Values::Text { takes, large: large == 1, ends: vec![0], bytes: vec![] }
}
