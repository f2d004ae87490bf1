//! The queue that the partitions of one consumer deliver into, and the rounds in which it is emptied.
//!
//! Laws:
//! * Between two calls from outside nothing is kept but the queue: what was revoked meanwhile, librdkafka takes out.
//! * A fetch ends at its limit of bytes, which it overruns by one piece at most: a piece is cut to what the largest
//!   records seen lately leave room for.
//! * A fetch waits for its first record or event. It ends early when the consumer's own queue has something, because
//!   only confluent-kafka can serve that.
//! * The client is held open by each call and let go of before it returns.
#![allow(unsafe_code)] // functions of C; each use says why it is sound

use std::collections::BTreeSet;
use std::ffi::{CString, c_int};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Client, Held};
use super::librdkafka::{Library, Message, Queue};
use super::take::{Delivery, Event, Taken};
use super::wake::{CALL, RECORD};

/// How often all partitions are forwarded again after one was added, and later. librdkafka ends the forwarding of a
/// partition when it stops it, in another thread and any time after it was given up. Assigned anew by then, it would
/// stand still for ever, in silence. What came meanwhile waits in it and is moved over. A stop follows in milliseconds.
/// The slow rhythm is for one that does not, and costs an idle process nothing.
const FORWARD: Duration = Duration::from_millis(50);
const FORWARD_LATER: Duration = Duration::from_secs(1);
const SETTLED: Duration = Duration::from_secs(10);

/// Messages taken at a time.
const PIECE: usize = 1024;

/// What a record may have, before one was seen.
const FIRST_LARGEST: usize = 64 << 10;

/// The consumer is closed.
#[derive(Debug, PartialEq)]
pub struct Closed;

/// When a fetch ends.
pub struct Limits {
    pub records: usize,
    pub bytes: usize,
    pub timeout: Duration,
    /// For what comes close behind the first record.
    pub linger: Duration,
}

/// The fetching end of a consumer. Dropped, it is closed.
pub struct Fetcher {
    library: &'static Library,
    client: Arc<Client>,
    /// Null once it is closed.
    queue: *mut Queue,
    routes: BTreeSet<(CString, i32)>,
    forwarded: Instant,
    changed: Instant,
    largest: usize,
    messages: Vec<*mut Message>,
}

// SAFETY: librdkafka's functions may be called from any thread, and every method needs the only reference. The messages
// are pointers without meaning between two calls.
unsafe impl Send for Fetcher {}
// SAFETY: nothing can be done with a shared reference.
unsafe impl Sync for Fetcher {}

impl Fetcher {
    /// Make a queue for a client, and have it and the client's own write into the client's pipe.
    pub fn new(library: &'static Library, client: Arc<Client>) -> Result<Fetcher, Closed> {
        let held = client.hold().ok_or(Closed)?;
        // SAFETY: the handle is held open. The descriptor is open for as long as the client is known, which is longer
        // than these queues. What is written is a byte that is there for ever, because librdkafka keeps a copy of it.
        let queue = unsafe {
            let queue = (library.queue_new)(held.handle);
            (library.queue_io_event_enable)(queue, client.pipe.end(), (&raw const RECORD).cast(), 1);
            let calls = (library.queue_get_consumer)(held.handle);
            (library.queue_io_event_enable)(calls, client.pipe.end(), (&raw const CALL).cast(), 1);
            (library.queue_destroy)(calls);
            queue
        };
        drop(held);
        let (now, messages) = (Instant::now(), vec![ptr::null_mut(); PIECE]);
        let routes = BTreeSet::new();
        Ok(Fetcher { library, client, queue, routes, forwarded: now, changed: now, largest: FIRST_LARGEST, messages })
    }

    /// Have a partition deliver here; to be called before it is assigned.
    pub fn route(&mut self, topic: CString, partition: i32) -> Result<(), Closed> {
        let held = held(&self.client, self.queue)?;
        forward(self.library, &held, self.queue, &topic, partition);
        drop(held);
        self.routes.insert((topic, partition));
        self.changed = Instant::now();
        Ok(())
    }

    /// Forget a partition that was given up.
    pub fn unroute(&mut self, topic: CString, partition: i32) {
        self.routes.remove(&(topic, partition));
    }

    /// Take what there is, within the limits.
    pub fn fetch(&mut self, limits: &Limits) -> Result<(Vec<Delivery>, Vec<Event>), Closed> {
        let client = self.client.clone();
        let held = held(&client, self.queue)?;
        let mut taken = Taken::new(self.library);
        let deadline = Instant::now() + limits.timeout;
        let mut linger = None;
        loop {
            let now = Instant::now();
            let rhythm = if now - self.changed < SETTLED { FORWARD } else { FORWARD_LATER };
            if now - self.forwarded >= rhythm {
                for (topic, partition) in &self.routes {
                    forward(self.library, &held, self.queue, topic, *partition);
                }
                self.forwarded = now;
            }
            self.empty(&mut taken, limits);
            if taken.records >= limits.records || taken.bytes >= limits.bytes || !taken.events.is_empty() {
                break;
            }
            let now = Instant::now();
            let until = if taken.records == 0 { deadline } else { *linger.get_or_insert(now + limits.linger) };
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            // The system counts whole milliseconds: rounded down, the last one would be spent in rounds.
            let wait = left.min(rhythm).as_micros().div_ceil(1000) as c_int;
            if client.pipe.wait(wait).is_some_and(|signs| signs.call) {
                break;
            }
        }
        if taken.records > 0 {
            self.largest = taken.largest.max(self.largest / 2);
        }
        Ok(taken.finish())
    }

    /// Let go of the client; to be called before that is closed. Again, it does nothing.
    ///
    /// Where the client went first, the queue and the pipe are left to leak: librdkafka's threads may be at them still.
    pub fn close(&mut self) {
        if let Ok(held) = held(&self.client, self.queue) {
            // SAFETY: the handle is held open, and the queue is ours until this call.
            unsafe {
                let calls = (self.library.queue_get_consumer)(held.handle);
                (self.library.queue_io_event_enable)(calls, -1, ptr::null(), 0);
                (self.library.queue_destroy)(calls);
                (self.library.queue_io_event_enable)(self.queue, -1, ptr::null(), 0);
                (self.library.queue_destroy)(self.queue);
            }
        }
        if !self.queue.is_null() && self.client.hold().is_none() {
            std::mem::forget(self.client.clone());
        }
        self.queue = ptr::null_mut();
    }

    /// Take from the queue until it is empty or a limit is reached.
    fn empty(&mut self, taken: &mut Taken, limits: &Limits) {
        while taken.records < limits.records && taken.bytes < limits.bytes {
            let largest = self.largest.max(taken.largest).max(1);
            let room = ((limits.bytes - taken.bytes) / largest).clamp(1, PIECE);
            let wanted = room.min(limits.records - taken.records);
            // SAFETY: the caller holds the client, and the queue is open; there is room for as many as are wanted.
            let found =
                unsafe { (self.library.consume_batch_queue)(self.queue, 0, self.messages.as_mut_ptr(), wanted) };
            let found = found.max(0) as usize;
            for message in &self.messages[..found] {
                // SAFETY: it was handed out just now, and is not used again.
                unsafe { taken.take(*message) };
            }
            if found < wanted {
                return;
            }
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.close();
    }
}

fn held(client: &Client, queue: *mut Queue) -> Result<Held<'_>, Closed> {
    if queue.is_null() { Err(Closed) } else { client.hold().ok_or(Closed) }
}

fn forward(library: &Library, held: &Held, queue: *mut Queue, topic: &CString, partition: i32) {
    // SAFETY: the handle is held open, the queue is open, and the name ends with a NUL. The queue of the partition is
    // given back.
    unsafe {
        let from = (library.queue_get_partition)(held.handle, topic.as_ptr(), partition);
        if !from.is_null() {
            (library.queue_forward)(from, queue);
            (library.queue_destroy)(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::client::made_for_a_test;
    use crate::fetch::fake::{ALIVE, ASKED, FORWARDED, LIBRARY, QUEUES, Stated, arrive};

    fn fetcher() -> Fetcher {
        Fetcher::new(&LIBRARY, made_for_a_test(ptr::dangling_mut::<u64>().cast())).unwrap()
    }

    fn limits(records: usize, bytes: usize) -> Limits {
        Limits { records, bytes, timeout: Duration::ZERO, linger: Duration::ZERO }
    }

    fn records(count: i64, size: usize) -> impl Iterator<Item = Stated> {
        let one = Stated { topic: "t", value: Some(vec![0; size]), ..Stated::default() };
        (0..count).map(move |offset| Stated { offset, ..one.clone() })
    }

    fn lengths(found: &[Delivery]) -> Vec<usize> {
        found.iter().map(|one| one.length).collect()
    }

    #[test]
    fn a_fetch_takes_what_there_is_up_to_its_count_and_leaves_the_rest_in_the_queue() {
        let mut fetcher = fetcher();
        arrive(records(3000, 10));
        assert_eq!(lengths(&fetcher.fetch(&limits(2500, 1 << 30)).unwrap().0), [2500]);
        assert_eq!(lengths(&fetcher.fetch(&limits(2500, 1 << 30)).unwrap().0), [500]);
        assert!(fetcher.fetch(&limits(2500, 1 << 30)).unwrap().0.is_empty());
        assert_eq!(ALIVE.get(), 0);
    }

    #[test]
    fn a_fetch_overruns_its_bytes_by_no_more_than_a_record_once_it_has_seen_one_and_takes_one_at_least() {
        let mut fetcher = fetcher();
        arrive(records(200, 1 << 20));
        assert_eq!(lengths(&fetcher.fetch(&limits(1000, 1)).unwrap().0), [1]);
        for _ in 0..10 {
            assert_eq!(lengths(&fetcher.fetch(&limits(1000, 8 << 20)).unwrap().0), [8]);
        }
        // Smaller ones are taken in greater pieces, soon.
        while !fetcher.fetch(&limits(1000, 8 << 20)).unwrap().0.is_empty() {}
        for _ in 0..20 {
            arrive(records(1000, 100));
            assert_eq!(fetcher.fetch(&limits(1000, 8 << 20)).unwrap().0.len(), 1);
        }
        assert_eq!(ASKED.with_borrow(|all| all.last().copied()), Some(1000));
        assert_eq!(ALIVE.get(), 0);
    }

    #[test]
    fn an_event_ends_a_fetch_and_comes_with_the_records_before_it() {
        let mut fetcher = fetcher();
        let event = Stated { err: -191, topic: "t", ..Stated::default() };
        arrive(records(2, 1).chain([event]));
        let long = Limits { timeout: Duration::from_secs(3600), linger: Duration::from_secs(3600), ..limits(10, 99) };
        let (found, events) = fetcher.fetch(&long).unwrap();
        assert_eq!((lengths(&found), events.len()), (vec![2], 1));
    }

    #[test]
    fn what_the_other_queue_has_ends_a_wait() {
        let mut fetcher = fetcher();
        fetcher.client.pipe.write();
        let long = Limits { timeout: Duration::from_secs(3600), ..limits(10, 99) };
        assert!(fetcher.fetch(&long).unwrap().0.is_empty());
    }

    #[test]
    fn partitions_are_forwarded_again_and_again_until_they_are_given_up() {
        let mut fetcher = fetcher();
        fetcher.route(c"t".into(), 1).unwrap();
        fetcher.route(c"t".into(), 2).unwrap();
        fetcher.route(c"t".into(), 2).unwrap();
        let (one, two) = (("t".to_owned(), 1), ("t".to_owned(), 2));
        assert_eq!(FORWARDED.take(), [one.clone(), two.clone(), two.clone()]);
        fetcher.forwarded -= FORWARD;
        fetcher.fetch(&limits(1, 1)).unwrap();
        fetcher.fetch(&limits(1, 1)).unwrap();
        assert_eq!(FORWARDED.take(), [one, two.clone()]);
        fetcher.unroute(c"t".into(), 1);
        fetcher.changed -= SETTLED;
        fetcher.forwarded -= FORWARD;
        fetcher.fetch(&limits(1, 1)).unwrap();
        assert_eq!(FORWARDED.take(), []);
        fetcher.forwarded -= FORWARD_LATER;
        fetcher.fetch(&limits(1, 1)).unwrap();
        assert_eq!(FORWARDED.take(), [two]);
    }

    #[test]
    fn what_is_closed_is_given_back_and_fetches_no_more() {
        let mut fetcher = fetcher();
        fetcher.route(c"t".into(), 1).unwrap();
        fetcher.close();
        assert_eq!(QUEUES.get(), 0);
        assert!(fetcher.fetch(&limits(1, 1)).is_err());
        assert_eq!(fetcher.route(c"t".into(), 1), Err(Closed));
        fetcher.close();
        assert_eq!(QUEUES.get(), 0);
    }

    #[test]
    fn a_client_that_went_first_is_not_touched() {
        let mut fetcher = fetcher();
        fetcher.client.gone();
        assert!(fetcher.fetch(&limits(1, 1)).is_err());
        fetcher.close();
        assert_eq!(QUEUES.get(), 1);
    }
}
