//! The records of one partition as columns, in the order they came.
//!
//! Laws:
//! * Each record has a value in each column. A value, a key or a time that is not there is a null.
//! * A header's name is text. A record with a name that is not UTF-8 gets `UNREADABLE` in place of all its headers, as
//!   Python gives it (`batcher/sources/kafka/headers.py`): a name that was changed would be a lie.
//! * No column reaches 2 GiB, because its offsets have 32 bits: who fills a run asks `takes` before each record.
//! * What is handed out has no room to spare: it is held in memory until it is written.

use crate::arrow::{self, Exported};
use crate::column::Bits;

/// What stands for headers that cannot be handed out.
pub const UNREADABLE: (&str, &[u8]) = ("batcher.headers", b"unreadable: a name is not UTF-8");

/// Which values are there. Nothing is kept while all are.
#[derive(Default)]
struct Validity {
    length: usize,
    nulls: usize,
    bits: Option<Bits>,
}

impl Validity {
    #[inline(always)]
    fn push(&mut self, there: bool) {
        if !there {
            self.nulls += 1;
            self.bits.get_or_insert_with(|| Bits::ones(self.length));
        }
        self.length += 1;
        if let Some(bits) = &mut self.bits {
            bits.push(there);
        }
    }
}

/// A column of bytes.
struct Bytes {
    validity: Validity,
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes { validity: Validity::default(), ends: vec![0], bytes: vec![] }
    }
}

impl Bytes {
    #[inline(always)]
    fn push(&mut self, value: Option<&[u8]>) {
        self.validity.push(value.is_some());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.ends.push(self.bytes.len() as i32);
    }

    fn export(self) -> arrow::ArrowArray {
        arrow::binary(self.ends, self.bytes, self.validity.nulls, self.validity.bits)
    }
}

/// The headers of all records so far.
struct Headers {
    validity: Validity,
    ends: Vec<i32>,
    names: Bytes,
    values: Bytes,
}

/// A name as bytes, and a value that may be missing.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

impl Headers {
    /// Begin, with records behind it that have none.
    fn after(records: usize) -> Headers {
        let none = Bits { bytes: vec![0; records.div_ceil(8)], len: records };
        let validity = Validity { length: records, nulls: records, bits: Some(none) };
        Headers { validity, ends: vec![0; records + 1], names: Bytes::default(), values: Bytes::default() }
    }

    fn push(&mut self, headers: Option<&[Header]>) {
        self.validity.push(headers.is_some());
        let headers = headers.unwrap_or_default();
        if headers.iter().all(|(name, _)| std::str::from_utf8(name).is_ok()) {
            for (name, value) in headers {
                self.names.push(Some(name));
                self.values.push(*value);
            }
        } else {
            self.names.push(Some(UNREADABLE.0.as_bytes()));
            self.values.push(Some(UNREADABLE.1));
        }
        self.ends.push(self.names.validity.length as i32);
    }
}

/// Records of one partition.
#[derive(Default)]
pub struct Run {
    offsets: Vec<i64>,
    times: Vec<i64>,
    timed: Validity,
    keys: Bytes,
    values: Bytes,
    /// Absent while no record has any.
    headers: Option<Headers>,
    size: usize,
}

impl Run {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Whether there is room for this many bytes, all columns together.
    pub fn takes(&self, bytes: usize) -> bool {
        self.is_empty() || self.size.saturating_add(bytes) <= i32::MAX as usize
    }

    /// Add a record. `headers` is None where it has none at all.
    pub fn push(
        &mut self,
        offset: i64,
        time: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Option<&[Header]>,
    ) {
        if headers.is_some_and(|headers| !headers.is_empty()) && self.headers.is_none() {
            self.headers = Some(Headers::after(self.len()));
        }
        if let Some(columns) = &mut self.headers {
            columns.push(headers);
        }
        self.offsets.push(offset);
        self.times.push(time.unwrap_or_default());
        self.timed.push(time.is_some());
        self.keys.push(key);
        self.values.push(value);
        self.size += size(key, value, headers.unwrap_or_default());
    }

    /// Hand out the columns: offset, time, key and value, and headers where a record has some.
    pub fn export(mut self) -> (Exported, bool) {
        let length = self.len();
        for vector in [&mut self.offsets, &mut self.times] {
            vector.shrink_to_fit();
        }
        for column in [&mut self.keys, &mut self.values] {
            column.ends.shrink_to_fit();
            column.bytes.shrink_to_fit();
        }
        let mut columns = vec![
            arrow::int64(self.offsets, 0, None),
            arrow::int64(self.times, self.timed.nulls, self.timed.bits),
            self.keys.export(),
            self.values.export(),
        ];
        let with_headers = self.headers.is_some();
        if let Some(Headers { validity, ends, names, values }) = self.headers {
            let pairs = arrow::structure(names.validity.length, vec![names.export(), values.export()]);
            columns.push(arrow::list(ends, pairs, validity.nulls, validity.bits));
        }
        (Exported::table(length, columns), with_headers)
    }
}

/// The bytes that a record takes in all columns.
pub fn size(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
    let headers =
        headers.iter().map(|(name, value)| name.len() + value.unwrap_or_default().len() + 8 + UNREADABLE.1.len());
    24 + key.unwrap_or_default().len() + value.unwrap_or_default().len() + headers.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_has_a_place_in_every_column_and_headers_begin_where_a_record_has_some() {
        let mut run = Run::default();
        run.push(3, Some(-1), None, Some(b"v"), None);
        run.push(7, None, Some(b""), None, Some(&[]));
        run.push(8, Some(5), Some(b"key"), Some(b""), Some(&[(b"a", None), (b"a", Some(b"x"))]));
        run.push(9, Some(6), None, Some(b"w"), Some(&[]));
        let headers = run.headers.as_ref().unwrap();
        assert_eq!((&run.offsets[..], &run.times[..], run.timed.nulls), (&[3, 7, 8, 9][..], &[-1, 0, 5, 6][..], 1));
        assert_eq!((&run.keys.ends[..], run.keys.validity.nulls), (&[0, 0, 0, 3, 3][..], 2));
        assert_eq!((&run.values.ends[..], run.values.validity.nulls), (&[0, 1, 1, 1, 2][..], 1));
        assert_eq!((&headers.ends[..], headers.validity.nulls), (&[0, 0, 0, 2, 2][..], 2));
        assert_eq!((&headers.names.bytes[..], headers.values.validity.nulls), (&b"aa"[..], 1));
        let (_, with_headers) = run.export();
        assert!(with_headers);
    }

    #[test]
    fn a_name_that_is_no_text_makes_the_headers_of_its_record_unreadable_and_no_other() {
        let mut run = Run::default();
        run.push(0, None, None, None, Some(&[(b"ok", Some(b"1"))]));
        run.push(1, None, None, None, Some(&[(b"ok", Some(b"1")), (b"\xed\xa0\x80", None), (b"ok", None)]));
        run.push(2, None, None, None, Some(&[(b"ok", None)]));
        let headers = run.headers.as_ref().unwrap();
        assert_eq!(headers.ends, [0, 1, 2, 3]);
        assert_eq!(headers.names.bytes, b"okbatcher.headersok");
        assert_eq!(&headers.values.bytes[1..], UNREADABLE.1);
    }

    #[test]
    fn a_run_takes_one_record_of_any_size_and_others_up_to_2_gib() {
        let mut run = Run::default();
        assert!(run.takes(usize::MAX));
        run.push(0, None, None, Some(b"x"), None);
        assert!(!run.takes(i32::MAX as usize));
        assert!(run.takes(i32::MAX as usize - 25));
        assert!(!Run::default().export().1);
    }
}
