//! The jobs of batcher that are done for each record, without Python objects. `decode` and `fetch`.
//!
//! `decode`: JSON values become columns of a schema; what is not plainly right is left to the Python code, which alone refuses
//! records. The seam on the Python side is `batcher/formats/json/native.py`; the rules are those of `docs/json.md`.
//! `fetch`: what librdkafka has fetched becomes columns of records, see `fetch`.

pub mod arrow;
pub mod batch;
pub mod column;
pub mod cursor;
pub mod decode;
pub mod escape;
#[cfg(unix)]
pub mod fetch;
mod lanes;
pub mod number;
pub mod plan;
#[cfg(feature = "python")]
mod python;
#[cfg(all(unix, feature = "python"))]
mod python_fetch;
pub mod time;
pub mod unknown;
