//! Messages of librdkafka, sorted into the runs of their partitions and the events among them.
//!
//! Laws: the records of a partition keep their order. Each message is destroyed here, once. A run keeps its first
//! message until the end, and with it the topic, so that no other topic can have the address of this one meanwhile.
#![allow(unsafe_code)] // structures of C; each use says why it is sound

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use super::librdkafka::{Library, Message, Topic};
use super::run::{Header, Run, size};
use crate::arrow::Exported;

/// `RD_KAFKA_TIMESTAMP_NOT_AVAILABLE`: the broker keeps no time for the record.
const NO_TIME: c_int = 0;

/// What librdkafka says of a partition: that its end was reached, or an error.
#[derive(Debug, PartialEq)]
pub struct Event {
    pub code: i32,
    pub text: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// Records of one partition on their way out.
pub struct Delivery {
    pub topic: String,
    pub partition: i32,
    pub length: usize,
    pub columns: Exported,
    pub with_headers: bool,
}

struct Source {
    topic: *mut Topic,
    partition: i32,
    first: *mut Message,
    name: String,
    run: Run,
}

/// What one fetch has taken so far.
pub struct Taken<'a> {
    library: &'a Library,
    sources: Vec<Source>,
    places: HashMap<(usize, i32), usize>,
    last: usize,
    pub events: Vec<Event>,
    pub records: usize,
    pub bytes: usize,
    /// The bytes of the largest record.
    pub largest: usize,
}

impl<'a> Taken<'a> {
    pub fn new(library: &'a Library) -> Self {
        Taken {
            library,
            sources: vec![],
            places: HashMap::new(),
            last: 0,
            events: vec![],
            records: 0,
            bytes: 0,
            largest: 0,
        }
    }

    /// Whether there is neither a record nor an event.
    pub fn is_empty(&self) -> bool {
        self.records == 0 && self.events.is_empty()
    }

    /// Take over a message.
    ///
    /// # Safety
    /// It is one that `consume_batch_queue` has just handed out, and the client is held open.
    #[inline]
    pub unsafe fn take(&mut self, pointer: *mut Message) {
        // SAFETY: a message that is alive until it is destroyed, below or with its run.
        let message = unsafe { &*pointer };
        if message.err != 0 {
            // SAFETY: as above; it is destroyed here and not used afterwards.
            unsafe {
                self.event(pointer);
                (self.library.message_destroy)(pointer);
            }
            return;
        }
        // SAFETY: the pointers of a message are null, or reach as far as its lengths say, while it is alive.
        let (key, value) = unsafe { (bytes(message.key, message.key_length), bytes(message.payload, message.length)) };
        let mut kind = NO_TIME;
        // librdkafka reads beyond what a message shows of itself, so it gets the pointer that it gave, and no reference.
        // SAFETY: a message that is alive, and room for the number.
        let time = unsafe { (self.library.message_timestamp)(pointer, &raw mut kind) };
        let time = (kind != NO_TIME).then_some(time);
        // SAFETY: as above. What it returns is borrowed from the message.
        let headers = unsafe { headers(self.library, pointer) };
        let record = size(key, value, headers.as_deref().unwrap_or_default());
        let (source, fresh) = self.source(message, pointer, record);
        source.run.push(message.offset, time, key, value, headers.as_deref());
        self.records += 1;
        self.bytes += record;
        self.largest = self.largest.max(record);
        if !fresh {
            // SAFETY: nothing borrowed from it is used afterwards, and no run keeps it.
            unsafe { (self.library.message_destroy)(pointer) };
        }
    }

    /// The run for a record of this size, and whether it has just begun, with this message as its first.
    #[inline]
    fn source(&mut self, message: &Message, pointer: *mut Message, record: usize) -> (&mut Source, bool) {
        let same = |source: &Source| source.partition == message.partition && source.topic == message.topic;
        let mut at = Some(self.last).filter(|at| self.sources.get(*at).is_some_and(same));
        if at.is_none() {
            at = self.places.get(&(message.topic as usize, message.partition)).copied();
        }
        at = at.filter(|at| self.sources[*at].run.takes(record));
        let fresh = at.is_none();
        self.last = at.unwrap_or(self.sources.len());
        if fresh {
            // SAFETY: the topic of a message that is alive.
            let name = unsafe { text((self.library.topic_name)(message.topic)) };
            let (topic, partition) = (message.topic, message.partition);
            self.places.insert((topic as usize, partition), self.last);
            self.sources.push(Source { topic, partition, first: pointer, name, run: Run::default() });
        }
        (&mut self.sources[self.last], fresh)
    }

    /// # Safety
    /// The message is alive and is an event.
    unsafe fn event(&mut self, pointer: *mut Message) {
        // SAFETY: as the caller says.
        let message = unsafe { &*pointer };
        let topic = if message.topic.is_null() {
            String::new()
        } else {
            // SAFETY: the topic of a message that is alive.
            unsafe { text((self.library.topic_name)(message.topic)) }
        };
        // SAFETY: a message that is alive, with an error.
        let text = unsafe { text((self.library.message_errstr)(pointer)) };
        let (partition, offset) = (message.partition, message.offset);
        self.events.push(Event { code: message.err, text, topic, partition, offset });
    }

    /// Hand out what was taken.
    pub fn finish(mut self) -> (Vec<Delivery>, Vec<Event>) {
        let deliveries = self.sources.iter_mut().map(|source| {
            let run = std::mem::take(&mut source.run);
            let length = run.len();
            let (columns, with_headers) = run.export();
            let topic = std::mem::take(&mut source.name);
            Delivery { topic, partition: source.partition, length, columns, with_headers }
        });
        (deliveries.collect(), std::mem::take(&mut self.events))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for source in &self.sources {
            // SAFETY: the first message of a run is kept for this, and is destroyed nowhere else.
            unsafe { (self.library.message_destroy)(source.first) };
        }
    }
}

/// # Safety
/// The pointer is null or reaches this far, for as long as the result is used.
#[inline(always)]
unsafe fn bytes<'m>(at: *const u8, length: usize) -> Option<&'m [u8]> {
    // SAFETY: as the caller says.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at, length) })
}

/// # Safety
/// The pointer is null or one of a string that ends with a NUL.
unsafe fn text(at: *const c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
}

/// The headers of a message; None where it has none.
///
/// # Safety
/// The message is alive while the result is used, and is a record.
#[inline]
unsafe fn headers<'m>(library: &Library, message: *const Message) -> Option<Vec<Header<'m>>> {
    let mut all = ptr::null_mut();
    // SAFETY: a message that is alive, and room for the pointer.
    if unsafe { (library.message_headers)(message, &raw mut all) } != 0 {
        return None;
    }
    let mut found = vec![];
    let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
    loop {
        // SAFETY: the headers belong to the message; there is room for what is written.
        let end =
            unsafe { (library.header_get_all)(all, found.len(), &raw mut name, &raw mut value, &raw mut length) != 0 };
        if end {
            return Some(found);
        }
        // SAFETY: a name ends with a NUL, a value is null or has this length, and both live as long as the message.
        found.push(unsafe { (CStr::from_ptr(name).to_bytes(), bytes(value, length)) });
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;
    use crate::fetch::fake::{ALIVE, LIBRARY, Stated, message};

    fn taken(all: impl IntoIterator<Item = Stated>) -> Taken<'static> {
        let mut taken = Taken::new(&LIBRARY);
        for stated in all {
            // SAFETY: a message of the library that is used.
            unsafe { taken.take(message(stated)) };
        }
        taken
    }

    fn record(topic: &'static str, partition: i32, offset: i64) -> Stated {
        Stated { topic, partition, offset, value: Some(b"value".to_vec()), ..Stated::default() }
    }

    #[test]
    fn records_of_a_partition_are_one_run_in_their_order_however_they_are_mixed() {
        let places = [("a", 0), ("b", 0), ("a", 1), ("b", 0), ("a", 0), ("a", 1), ("b", 0)];
        let taken = taken((0..).zip(places).map(|(offset, (topic, number))| record(topic, number, offset)));
        assert_eq!((taken.records, taken.largest), (7, 29));
        let (found, events) = taken.finish();
        let found: Vec<_> = found.iter().map(|one| (&one.topic[..], one.partition, one.length)).collect();
        assert_eq!(found, [("a", 0, 2), ("b", 0, 3), ("a", 1, 2)]);
        assert!(events.is_empty());
        assert_eq!(ALIVE.get(), 0);
    }

    #[test]
    fn events_are_told_with_their_place_and_every_message_is_destroyed_once() {
        let event = Stated { err: -191, topic: "a", partition: 3, offset: 9, ..Stated::default() };
        let whole = Stated { err: -150, partition: -1, offset: -1001, ..Stated::default() };
        let taken = taken([record("a", 0, 1), event, whole, record("a", 0, 2)]);
        assert_eq!(ALIVE.get(), 1, "the first message of a run is kept");
        let (_, events) = taken.finish();
        let told: Vec<_> = events.iter().map(|one| (one.code, &one.topic[..], one.partition, one.offset)).collect();
        assert_eq!(told, [(-191, "a", 3, 9), (-150, "", -1, -1001)]);
        assert_eq!(events[0].text, "said");
        assert_eq!(ALIVE.get(), 0);
    }

    #[test]
    fn headers_count_for_the_bytes_of_a_record() {
        let header = (CString::from(c"name"), Some(b"x".to_vec()));
        let with = Stated { headers: Some(vec![header]), ..record("a", 0, 1) };
        let taken = taken([with, record("a", 0, 2)]);
        assert!(taken.largest > 29 + 5);
        assert_eq!(taken.bytes, taken.largest + 29);
        assert!(taken.finish().0[0].with_headers);
    }
}
