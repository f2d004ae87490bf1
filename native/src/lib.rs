//! The jobs of batcher that are done for each record, without Python objects. So far: `decode`.
//!
//! JSON values become columns of a schema; what is not plainly right is left to the Python code, which alone refuses
//! records. The seam on the Python side is `batcher/formats/json/native.py`; the rules are those of `docs/json.md`.

pub mod arrow;
pub mod batch;
pub mod column;
pub mod cursor;
pub mod decode;
pub mod escape;
mod lanes;
pub mod number;
pub mod plan;
#[cfg(feature = "python")]
mod python;
pub mod time;
pub mod unknown;
