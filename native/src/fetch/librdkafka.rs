//! The functions of librdkafka that are used, found in the library that another extension has loaded.
//!
//! Laws: either all of them are found, or nothing of this is used. Types are those of `rdkafka.h`; its binary interface
//! has kept them since 1.0. Each function is called as that header says, by who holds the client open (see `client`).
#![allow(unsafe_code)] // addresses become functions; each use says why it is sound

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

/// `rd_kafka_t`.
pub type Handle = c_void;
/// `rd_kafka_queue_t`.
pub type Queue = c_void;
/// `rd_kafka_topic_t`.
pub type Topic = c_void;

/// `rd_kafka_message_t`.
#[repr(C)]
pub struct Message {
    pub err: c_int,
    pub topic: *mut Topic,
    pub partition: i32,
    pub payload: *const u8,
    pub length: usize,
    pub key: *const u8,
    pub key_length: usize,
    pub offset: i64,
    pub private: *mut c_void,
}

pub type OnNew = unsafe extern "C" fn(*mut Handle, *const c_void, *mut c_void, *mut c_char, usize) -> c_int;
pub type OnDestroy = unsafe extern "C" fn(*mut Handle, *mut c_void) -> c_int;

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, by their names without `rd_kafka_`.
        pub struct Library { $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)* }

        impl Library {
            /// Find them where `of` finds an address for each name.
            ///
            /// # Safety
            /// What stands at an address is the function of that name, of librdkafka or one like it, and stays there.
            unsafe fn find(of: impl Fn(&CStr) -> *mut c_void) -> Option<Library> {
                $(
                    let address = of(const {
                        match CStr::from_bytes_with_nul(concat!("rd_kafka_", stringify!($name), "\0").as_bytes()) {
                            Ok(name) => name,
                            Err(_) => panic!("a name holds a NUL"),
                        }
                    });
                    if address.is_null() {
                        return None;
                    }
                    // SAFETY: an address that is not null, and the function there has this type, as the caller says.
                    let $name = unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(address)
                    };
                )*
                Some(Library { $($name,)* })
            }
        }
    };
}

functions! {
    version: fn() -> c_int;
    conf_interceptor_add_on_new: fn(*mut c_void, *const c_char, OnNew, *mut c_void) -> c_int;
    interceptor_add_on_destroy: fn(*mut Handle, *const c_char, OnDestroy, *mut c_void) -> c_int;
    queue_new: fn(*mut Handle) -> *mut Queue;
    queue_get_consumer: fn(*mut Handle) -> *mut Queue;
    queue_get_partition: fn(*mut Handle, *const c_char, i32) -> *mut Queue;
    queue_forward: fn(*mut Queue, *mut Queue);
    queue_destroy: fn(*mut Queue);
    queue_io_event_enable: fn(*mut Queue, c_int, *const c_void, usize);
    consume_batch_queue: fn(*mut Queue, c_int, *mut *mut Message, usize) -> isize;
    message_destroy: fn(*mut Message);
    message_errstr: fn(*const Message) -> *const c_char;
    message_timestamp: fn(*const Message, *mut c_int) -> i64;
    message_headers: fn(*const Message, *mut *mut c_void) -> c_int;
    header_get_all: fn(*const c_void, usize, *mut *const c_char, *mut *const u8, *mut usize) -> c_int;
    topic_name: fn(*const Topic) -> *const c_char;
}

static LOADED: OnceLock<Option<Library>> = OnceLock::new();

impl Library {
    /// Look, once in a process, in a module that is loaded and in what it is linked with.
    pub fn load(module: &CStr) -> Option<&'static Library> {
        let found = LOADED.get_or_init(|| {
            // SAFETY: a string that ends with a NUL. With RTLD_NOLOAD no code is run.
            let handle = unsafe { libc::dlopen(module.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
            if handle.is_null() {
                return None;
            }
            // SAFETY: a handle that is open and is never closed here, so that what is found stays; only librdkafka
            // has functions of these names.
            unsafe { Library::find(|name| libc::dlsym(handle, name.as_ptr())) }
        });
        found.as_ref()
    }

    /// Return what was found before.
    pub fn loaded() -> Option<&'static Library> {
        LOADED.get().and_then(Option::as_ref)
    }
}
