//! All messages of a batch, chunk by chunk.
//!
//! Laws: each message is in exactly one of two places: `rows`, in the order of the table, or `aside`, ascending, which has
//! the nulls and what is left to the reference. At most 2 GiB are read at a time, because offsets in a column are 32
//! bits: nothing in a column is longer than the messages it came from.

use crate::arrow::Binary;
use crate::decode::Reader;

/// Where the messages went.
#[derive(Default)]
pub struct Places {
    pub rows: Vec<i64>,
    pub aside: Vec<i64>,
}

/// Read all messages. None where they are more than can be read at a time.
pub fn read(reader: &mut Reader, chunks: &[Binary]) -> Option<Places> {
    let count = chunks.iter().map(Binary::len).sum();
    if chunks.iter().map(Binary::size).sum::<usize>() > i32::MAX as usize {
        return None;
    }
    reader.root.columns.iter_mut().for_each(|column| column.reserve(count));
    let mut places = Places { rows: Vec::with_capacity(count), aside: vec![] };
    let mut number = 0;
    for chunk in chunks {
        for row in 0..chunk.len() {
            match chunk.get(row).map(|(room, length)| reader.read(room, length, number)) {
                Some(Ok(())) => places.rows.push(number as i64),
                _ => places.aside.push(number as i64),
            }
            number += 1;
        }
    }
    reader.root.finish();
    Some(places)
}
