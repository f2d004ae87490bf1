//! The handles of librdkafka's clients, which it tells its plug-ins about.
//!
//! Laws: a client is known from its creation to its destruction, by an object of its own and not by its address, which
//! may be used again. Who uses the handle holds `open` meanwhile, and destruction waits for that. So nothing here ever
//! uses a handle that is gone. Only clients that were made with this plug-in are known.
#![allow(unsafe_code)] // called from C with addresses; each use says why it is sound

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::librdkafka::{Handle, Library};
use super::wake::Pipe;

const PLUGIN: &CStr = c"batcher";

/// One client, while it lives and after.
pub struct Client {
    address: usize,
    open: Mutex<bool>,
    /// What interrupts the wait of who holds `open`.
    pub pipe: Pipe,
}

/// The right to use the handle, for as long as this lives.
pub struct Held<'a> {
    pub handle: *mut Handle,
    _open: MutexGuard<'a, bool>,
}

impl Client {
    /// None for an address that is never one of a handle, and where there is no pipe to be had.
    fn new(handle: *mut Handle) -> Option<Arc<Client>> {
        Some(Arc::new(Client { address: handle as usize, open: Mutex::new(true), pipe: Pipe::new().ok()? }))
    }

    /// Hold the client open; None where it is closed.
    pub fn hold(&self) -> Option<Held<'_>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.then_some(Held { handle: self.address as *mut Handle, _open: open })
    }

    pub(super) fn gone(&self) {
        self.pipe.write();
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

static KNOWN: Mutex<Option<HashMap<usize, Arc<Client>>>> = Mutex::new(None);

thread_local!(static MADE: RefCell<Option<Arc<Client>>> = const { RefCell::new(None) });

fn known<T>(action: impl FnOnce(&mut HashMap<usize, Arc<Client>>) -> T) -> T {
    action(KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Take the client that this thread has made last, once.
pub fn made() -> Option<Arc<Client>> {
    MADE.take()
}

/// What librdkafka calls when `plugin.library.paths` names this library. Not 0: the properties are refused.
///
/// # Safety
/// `conf` is a configuration, as librdkafka hands it to a plug-in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn conf_init(
    conf: *mut c_void,
    _opaque: *mut *mut c_void,
    _reason: *mut c_char,
    _size: usize,
) -> c_int {
    match Library::loaded() {
        // SAFETY: the configuration is alive in this call; the name and the function are there for ever.
        Some(library) => unsafe {
            (library.conf_interceptor_add_on_new)(conf, PLUGIN.as_ptr(), on_new, ptr::null_mut())
        },
        None => -1,
    }
}

unsafe extern "C" fn on_new(
    handle: *mut Handle,
    _conf: *const c_void,
    _opaque: *mut c_void,
    _reason: *mut c_char,
    _size: usize,
) -> c_int {
    MADE.take();
    let (Some(library), Some(client)) = (Library::loaded(), Client::new(handle)) else { return 0 };
    // SAFETY: the handle is alive in this call; the name and the function are there for ever.
    let refused = unsafe { (library.interceptor_add_on_destroy)(handle, PLUGIN.as_ptr(), on_destroy, ptr::null_mut()) };
    // A client whose end would not be told is as good as unknown.
    if refused == 0 {
        known(|clients| clients.insert(handle as usize, client.clone()));
        MADE.set(Some(client));
    }
    0
}

unsafe extern "C" fn on_destroy(handle: *mut Handle, _opaque: *mut c_void) -> c_int {
    // Outside the lock of all clients: it may have to wait for a fetch of this one.
    if let Some(client) = known(|clients| clients.remove(&(handle as usize))) {
        client.gone();
    }
    0
}

#[cfg(test)]
pub(super) fn made_for_a_test(handle: *mut Handle) -> Arc<Client> {
    Client::new(handle).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_gone_cannot_be_held_though_its_address_is_used_again() {
        let handle = 0x1000 as *mut Handle;
        let first = Client::new(handle).unwrap();
        known(|clients| clients.insert(handle as usize, first.clone()));
        assert!(first.hold().is_some_and(|held| held.handle == handle));
        // SAFETY: what is called looks at the address and at nothing behind it.
        unsafe { on_destroy(handle, ptr::null_mut()) };
        let second = Client::new(handle).unwrap();
        known(|clients| clients.insert(handle as usize, second.clone()));
        assert!(first.hold().is_none());
        assert!(second.hold().is_some());
    }

    #[test]
    fn a_client_is_not_gone_before_who_holds_it_is_done_and_a_wait_is_interrupted() {
        let client = Client::new(0x2000 as *mut Handle).unwrap();
        let held = client.hold().unwrap();
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| client.gone());
            assert!(client.pipe.wait(60_000).is_some());
            assert!(!ending.is_finished());
            drop(held);
        });
        assert!(client.hold().is_none());
    }

    #[test]
    fn without_librdkafka_the_plug_in_refuses() {
        // SAFETY: what is called does not look at what it is given.
        assert_eq!(unsafe { conf_init(ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0) }, -1);
    }
}
