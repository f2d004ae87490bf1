//! Any bytes, taken for messages that a zero byte separates: the laws of `tests/laws.rs` hold.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/laws.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::hold(data));
