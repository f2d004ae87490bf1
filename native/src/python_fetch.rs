//! What Python sees of `fetch`: a class for the fetching end of a consumer, and one for the records of a partition.
//!
//! Laws: the interpreter lock is released while records are waited for and copied. Nothing here looks into an object of
//! confluent-kafka: the client is the one that the same thread has made last, with this library as its plug-in.

use std::ffi::CString;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::arrow::Exported;
use crate::fetch::client;
use crate::fetch::fetcher::{Closed, Fetcher as Inner, Limits};
use crate::fetch::librdkafka::Library;

impl From<Closed> for PyErr {
    fn from(_: Closed) -> PyErr {
        PyRuntimeError::new_err("the consumer is closed")
    }
}

/// Find librdkafka behind a module that is loaded; return its version, 0 where not all that is needed was found.
#[pyfunction]
fn librdkafka(module: CString) -> i32 {
    #[allow(unsafe_code)]
    // SAFETY: a function without arguments, found under its name.
    Library::load(&module).map_or(0, |library| unsafe { (library.version)() })
}

/// Code, text, topic, partition, offset.
type Event = (i32, String, String, i32, i64);

/// The fetching end of the consumer that this thread has made last.
#[pyclass]
struct Fetcher(Inner);

#[pymethods]
impl Fetcher {
    /// Raise RuntimeError where this thread has made no consumer with the plug-in.
    #[new]
    fn new() -> PyResult<Self> {
        let none = || PyRuntimeError::new_err("this thread has made no consumer with this plug-in");
        let (library, client) = Library::loaded().zip(client::made()).ok_or_else(none)?;
        Ok(Fetcher(Inner::new(library, client)?))
    }

    /// Have a partition deliver here; to be called before it is assigned.
    fn route(&mut self, topic: CString, partition: i32) -> PyResult<()> {
        Ok(self.0.route(topic, partition)?)
    }

    /// Forget a partition that was given up.
    fn unroute(&mut self, topic: CString, partition: i32) {
        self.0.unroute(topic, partition);
    }

    /// Return records, and events of partitions, within the limits; wait for the first of them.
    fn fetch(
        &mut self,
        py: Python<'_>,
        max_records: usize,
        max_bytes: usize,
        timeout_ms: u64,
        linger_ms: u64,
    ) -> PyResult<(Vec<Run>, Vec<Event>)> {
        let (timeout, linger) = (Duration::from_millis(timeout_ms), Duration::from_millis(linger_ms));
        let limits = Limits { records: max_records, bytes: max_bytes, timeout, linger };
        let inner = &mut self.0;
        let (deliveries, events) = py.detach(|| inner.fetch(&limits))?;
        let runs = deliveries.into_iter().map(|one| Run {
            topic: one.topic,
            partition: one.partition,
            length: one.length,
            with_headers: one.with_headers,
            columns: one.columns,
        });
        let events = events.into_iter().map(|one| (one.code, one.text, one.topic, one.partition, one.offset));
        Ok((runs.collect(), events.collect()))
    }

    /// Let go of the consumer; to be called before that is closed.
    fn close(&mut self, py: Python<'_>) {
        let inner = &mut self.0;
        py.detach(|| inner.close());
    }
}

/// Records of one partition, in order.
#[pyclass(frozen)]
struct Run {
    #[pyo3(get)]
    topic: String,
    #[pyo3(get)]
    partition: i32,
    #[pyo3(get)]
    length: usize,
    /// Whether there is a fifth column.
    #[pyo3(get)]
    with_headers: bool,
    columns: Exported,
}

#[pymethods]
impl Run {
    /// The address of an `ArrowArray`, good for one import: offset, timestamp, key, value, headers where there are any.
    #[getter]
    fn columns(&self) -> usize {
        self.columns.address()
    }
}

/// Add this to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(librdkafka, module)?)?;
    module.add_class::<Fetcher>()?;
    module.add_class::<Run>()
}
