//! A librdkafka for the tests: one queue for each thread, and a count of the messages that nobody has destroyed.
#![allow(unsafe_code)] // it stands for a library of C; what it is given are its own messages
#![allow(clippy::undocumented_unsafe_blocks)] // for the same reason in each

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use super::librdkafka::{Handle, Library, Message, OnDestroy, OnNew, Queue, Topic};

/// A record or an event, as a test states it.
#[derive(Clone, Default)]
pub struct Stated {
    pub err: c_int,
    pub topic: &'static str,
    pub partition: i32,
    pub offset: i64,
    pub time: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Option<Vec<(CString, Option<Vec<u8>>)>>,
}

#[repr(C)]
struct Made {
    message: Message,
    stated: Stated,
}

thread_local! {
    static QUEUE: RefCell<VecDeque<*mut Message>> = const { RefCell::new(VecDeque::new()) };
    static TOPICS: RefCell<Vec<(&'static str, CString)>> = const { RefCell::new(Vec::new()) };
    /// Messages that were made and not destroyed.
    pub static ALIVE: Cell<usize> = const { Cell::new(0) };
    /// Queues that were asked for and not given back.
    pub static QUEUES: Cell<isize> = const { Cell::new(0) };
    /// The partitions that were forwarded, each time.
    pub static FORWARDED: RefCell<Vec<(String, i32)>> = const { RefCell::new(Vec::new()) };
    /// How many messages were asked for, each time.
    pub static ASKED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static ASKED_OF: RefCell<(String, i32)> = const { RefCell::new((String::new(), 0)) };
}

/// Put messages into the queue.
pub fn arrive(all: impl IntoIterator<Item = Stated>) {
    for stated in all {
        QUEUE.with_borrow_mut(|queue| queue.push_back(message(stated)));
    }
}

/// Make a message, to be destroyed by who takes it.
pub fn message(stated: Stated) -> *mut Message {
    ALIVE.set(ALIVE.get() + 1);
    let made = Box::into_raw(Box::new(Made {
        message: Message {
            err: stated.err,
            topic: topic(stated.topic),
            partition: stated.partition,
            payload: ptr::null(),
            length: 0,
            key: ptr::null(),
            key_length: 0,
            offset: stated.offset,
            private: ptr::null_mut(),
        },
        stated,
    }));
    let made = unsafe { &mut *made };
    let at = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or((ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
    (made.message.payload, made.message.length) = at(&made.stated.value);
    (made.message.key, made.message.key_length) = at(&made.stated.key);
    ptr::from_mut(made).cast()
}

fn topic(name: &'static str) -> *mut Topic {
    if name.is_empty() {
        return ptr::null_mut();
    }
    TOPICS.with_borrow_mut(|topics| {
        let at = topics.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            topics.push((name, CString::new(name).unwrap()));
            topics.len() - 1
        });
        // The text of a CString stays where it is when the vector grows.
        topics[at].1.as_ptr().cast_mut().cast()
    })
}

unsafe fn stated<'a>(message: *const Message) -> &'a Stated {
    unsafe { &(*message.cast::<Made>()).stated }
}

unsafe extern "C" fn version() -> c_int {
    1
}
unsafe extern "C" fn add_on_new(_: *mut c_void, _: *const c_char, _: OnNew, _: *mut c_void) -> c_int {
    0
}
unsafe extern "C" fn add_on_destroy(_: *mut Handle, _: *const c_char, _: OnDestroy, _: *mut c_void) -> c_int {
    0
}
unsafe extern "C" fn queue_new(_: *mut Handle) -> *mut Queue {
    QUEUES.set(QUEUES.get() + 1);
    ptr::dangling_mut::<u64>().cast()
}
unsafe extern "C" fn queue_get_partition(_: *mut Handle, topic: *const c_char, partition: i32) -> *mut Queue {
    QUEUES.set(QUEUES.get() + 1);
    ASKED_OF.set((unsafe { CStr::from_ptr(topic) }.to_string_lossy().into_owned(), partition));
    ptr::dangling_mut::<u64>().cast()
}
unsafe extern "C" fn queue_forward(_: *mut Queue, _: *mut Queue) {
    FORWARDED.with_borrow_mut(|all| all.push(ASKED_OF.take()));
}
unsafe extern "C" fn queue_destroy(_: *mut Queue) {
    QUEUES.set(QUEUES.get() - 1);
}
unsafe extern "C" fn io_event(_: *mut Queue, _: c_int, _: *const c_void, _: usize) {}
unsafe extern "C" fn consume(_: *mut Queue, _: c_int, room: *mut *mut Message, size: usize) -> isize {
    ASKED.with_borrow_mut(|all| all.push(size));
    QUEUE.with_borrow_mut(|queue| {
        let count = size.min(queue.len());
        for (at, message) in queue.drain(..count).enumerate() {
            unsafe { room.add(at).write(message) };
        }
        count as isize
    })
}
unsafe extern "C" fn destroy(message: *mut Message) {
    ALIVE.set(ALIVE.get() - 1);
    drop(unsafe { Box::from_raw(message.cast::<Made>()) });
}
unsafe extern "C" fn errstr(_: *const Message) -> *const c_char {
    c"said".as_ptr()
}
unsafe extern "C" fn timestamp(message: *const Message, kind: *mut c_int) -> i64 {
    let time = unsafe { stated(message) }.time;
    unsafe { kind.write(time.is_some() as c_int) };
    time.unwrap_or(-1)
}
unsafe extern "C" fn headers(message: *const Message, all: *mut *mut c_void) -> c_int {
    let Some(headers) = &unsafe { stated(message) }.headers else { return 1 };
    unsafe { all.write(ptr::from_ref(headers).cast_mut().cast()) };
    0
}
unsafe extern "C" fn header(
    all: *const c_void,
    at: usize,
    name: *mut *const c_char,
    value: *mut *const u8,
    length: *mut usize,
) -> c_int {
    let all = unsafe { &*all.cast::<Vec<(CString, Option<Vec<u8>>)>>() };
    let Some((found, bytes)) = all.get(at) else { return 1 };
    unsafe {
        name.write(found.as_ptr());
        value.write(bytes.as_ref().map_or(ptr::null(), |bytes| bytes.as_ptr()));
        length.write(bytes.as_ref().map_or(0, Vec::len));
    }
    0
}
unsafe extern "C" fn topic_name(topic: *const Topic) -> *const c_char {
    topic.cast()
}

pub static LIBRARY: Library = Library {
    version,
    conf_interceptor_add_on_new: add_on_new,
    interceptor_add_on_destroy: add_on_destroy,
    queue_new,
    queue_get_consumer: queue_new,
    queue_get_partition,
    queue_forward,
    queue_destroy,
    queue_io_event_enable: io_event,
    consume_batch_queue: consume,
    message_destroy: destroy,
    message_errstr: errstr,
    message_timestamp: timestamp,
    message_headers: headers,
    header_get_all: header,
    topic_name,
};
