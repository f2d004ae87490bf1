//! A pipe that librdkafka writes to when something arrives in a queue that was empty.
//!
//! Laws: neither end ever blocks. What was written before a wait ends it at once: at worst that is a round for nothing,
//! and nothing is missed. A full pipe needs no more bytes.
#![allow(unsafe_code)] // system calls; each use says why it is sound

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What is written for a record or an event of a partition.
pub static RECORD: u8 = b'r';
/// What is written for the queue that stays with confluent-kafka, and for a client that is about to be closed.
pub static CALL: u8 = b'c';

/// A pipe, both ends closed with it.
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

/// What was written since the wait before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signs {
    /// The queue of confluent-kafka has something.
    pub call: bool,
}

impl Pipe {
    pub fn new() -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: there is room for the two numbers that are written.
        if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: two descriptors that were just opened, and nobody else knows them.
        let [out, into] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        for end in [&out, &into] {
            // SAFETY: an open descriptor; the arguments are plain numbers.
            let refused = unsafe {
                libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) != 0
                    || libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) != 0
            };
            if refused {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Pipe { out, into })
    }

    /// Where to write.
    pub fn end(&self) -> c_int {
        self.into.as_raw_fd()
    }

    /// Write that there is something to call back.
    pub fn write(&self) {
        // SAFETY: an open descriptor and one byte that is there.
        unsafe { libc::write(self.end(), (&raw const CALL).cast(), 1) };
    }

    /// Wait, and take out what was written; None where nothing was. A signal may end it early.
    pub fn wait(&self, timeout_ms: c_int) -> Option<Signs> {
        let mut asked = libc::pollfd { fd: self.out.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which is there.
        if unsafe { libc::poll(&raw mut asked, 1, timeout_ms) } <= 0 {
            return None;
        }
        let mut signs = Signs { call: false };
        let mut room = [0u8; 256];
        loop {
            // SAFETY: an open descriptor, and room for as many bytes as may be read.
            let count = unsafe { libc::read(self.out.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
            let read = &room[..count.max(0) as usize];
            signs.call |= read.contains(&CALL);
            if read.len() < room.len() {
                return Some(signs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_ends_a_wait_once_and_a_full_pipe_takes_no_harm() {
        let pipe = Pipe::new().unwrap();
        assert_eq!(pipe.wait(0), None);
        for _ in 0..100_000 {
            pipe.write();
        }
        assert_eq!(pipe.wait(60_000), Some(Signs { call: true }));
        assert_eq!(pipe.wait(0), None);
        // SAFETY: an open descriptor and one byte that is there.
        unsafe { libc::write(pipe.end(), (&raw const RECORD).cast(), 1) };
        assert_eq!(pipe.wait(0), Some(Signs { call: false }));
    }
}
