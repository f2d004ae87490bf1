//! The fields that no column takes, counted.
//!
//! Laws: a row counts once for a field, however often it has it, and only if it stays a row. A field that is null does
//! not count: nothing is lost with it. Of a key that occurs twice in one object the last value counts. At most `MOST` different fields are told apart at a time: a dictionary in place
//! of a record has one for each key.

use std::collections::HashMap;

const MOST: usize = 1000;

/// One field: the object it is in, its name, and the rows that had a value there.
pub struct Field {
    pub object: usize,
    pub name: Box<[u8]>,
    pub records: usize,
    pub first: usize,
    last: usize,
}

/// All of them.
#[derive(Default)]
pub struct Unknown {
    found: Vec<Field>,
    /// By object, then by name.
    places: Vec<HashMap<Box<[u8]>, usize>>,
    /// Those of the row at hand.
    here: Vec<usize>,
}

impl Unknown {
    /// Note a field of the row at hand.
    pub fn note(&mut self, object: usize, name: &[u8]) {
        if self.places.len() <= object {
            self.places.resize_with(object + 1, HashMap::new);
        }
        if let Some(place) = self.places[object].get(name) {
            self.here.push(*place);
        } else if self.found.len() < MOST {
            let place = self.found.len();
            self.places[object].insert(name.into(), place);
            self.found.push(Field { object, name: name.into(), records: 0, first: 0, last: usize::MAX });
            self.here.push(place);
        }
    }

    /// How many fields of the row at hand were noted so far.
    #[inline(always)]
    pub fn noted(&self) -> usize {
        self.here.len()
    }

    /// A field of an object is null after all; what was noted of that object begins at `since`.
    pub fn withdraw(&mut self, object: usize, name: &[u8], since: usize) {
        let place = self.places.get(object).and_then(|places| places.get(name)).copied();
        let mut kept = since;
        for at in since..self.here.len() {
            if Some(self.here[at]) != place {
                self.here[kept] = self.here[at];
                kept += 1;
            }
        }
        self.here.truncate(kept);
    }

    /// The row at hand is one.
    #[inline(always)]
    pub fn keep(&mut self, row: usize) {
        for place in self.here.drain(..) {
            let field = &mut self.found[place];
            if field.records == 0 {
                field.first = row;
            }
            field.records += (field.last != row) as usize;
            field.last = row;
        }
    }

    /// The row at hand is none.
    pub fn forget(&mut self) {
        self.here.clear();
    }

    /// Hand out what was found and begin anew.
    pub fn take(&mut self) -> Vec<Field> {
        let all = std::mem::take(self);
        all.found.into_iter().filter(|field| field.records > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_counts_once_and_only_if_it_stays() {
        let mut unknown = Unknown::default();
        unknown.note(0, b"lost");
        unknown.note(0, b"a");
        unknown.forget();
        for row in [3, 5] {
            unknown.note(0, b"a");
            unknown.note(1, b"a");
            unknown.note(0, b"a");
            unknown.keep(row);
        }
        let found: Vec<_> = unknown.take().iter().map(|f| (f.object, f.name.to_vec(), f.records, f.first)).collect();
        assert_eq!(found, [(0, b"a".to_vec(), 2, 3), (1, b"a".to_vec(), 2, 3)]);
        assert!(unknown.take().is_empty());
    }

    #[test]
    fn of_a_key_that_occurs_twice_the_last_value_counts() {
        let mut unknown = Unknown::default();
        unknown.note(1, b"a");
        let since = unknown.noted();
        unknown.note(0, b"a");
        unknown.note(1, b"a");
        unknown.note(0, b"b");
        unknown.withdraw(0, b"a", since);
        unknown.withdraw(0, b"never", since);
        unknown.keep(7);
        let found: Vec<_> = unknown.take().iter().map(|f| (f.object, f.name.to_vec())).collect();
        assert_eq!(found, [(1, b"a".to_vec()), (0, b"b".to_vec())]);
    }

    #[test]
    fn a_dictionary_does_not_fill_the_memory() {
        let mut unknown = Unknown::default();
        for key in 0..5000 {
            unknown.note(0, key.to_string().as_bytes());
        }
        unknown.keep(0);
        assert_eq!(unknown.take().len(), MOST);
    }
}
