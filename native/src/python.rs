//! What Python sees: a module with one class that decodes and one for what came out.
//!
//! Laws: the interpreter lock is released while messages are read. A decoder is for one thread at a time; a second one
//! gets an error from PyO3 and never a data race.
#![allow(unsafe_code)] // pointers out of capsules; each use says why it is sound

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::arrow::{ArrowArray, ArrowSchema, Binary, Exported};
use crate::batch;
use crate::decode::{Limits, OnUnknown, Reader};
use crate::plan::{Field, Planner};
use crate::time::{Marks, UNITS};

/// Decode JSON messages into one schema.
#[pyclass]
struct Decoder {
    reader: Reader,
    objects: Vec<String>,
    times: Vec<String>,
}

#[pymethods]
impl Decoder {
    /// Take the fields of the schema as `native.py` describes them; raise ValueError for what is not known here.
    #[new]
    fn new(
        fields: Vec<Field>,
        max_bytes: usize,
        max_depth: u32,
        on_unknown: &str,
        insensitive: bool,
    ) -> PyResult<Self> {
        let on_unknown = match on_unknown {
            "skip" => OnUnknown::Skip,
            "count" => OnUnknown::Count,
            "suspect" => OnUnknown::Suspect,
            other => return Err(PyValueError::new_err(format!("on_unknown {other}"))),
        };
        let mut planner = Planner { insensitive, objects: vec![], times: vec![] };
        let root = planner.object("", fields).map_err(PyValueError::new_err)?;
        let reader = Reader::new(root, Limits { max_bytes, max_depth, on_unknown });
        Ok(Decoder { reader, objects: planner.objects, times: planner.times })
    }

    /// Read all chunks of binary messages, which are left as they are.
    ///
    /// Raise OverflowError for more than 2 GiB, TypeError for anything but binary.
    fn decode(&mut self, py: Python<'_>, chunks: Vec<Bound<'_, PyAny>>) -> PyResult<Outcome> {
        let pairs = chunks.iter().map(|chunk| chunk.call_method0("__arrow_c_array__")?.extract());
        let pairs: Vec<(Bound<'_, PyCapsule>, Bound<'_, PyCapsule>)> = pairs.collect::<PyResult<_>>()?;
        let borrowed = pairs.iter().map(|(schema, array)| {
            let schema = schema.pointer_checked(Some(c"arrow_schema"))?.cast::<ArrowSchema>();
            let array = array.pointer_checked(Some(c"arrow_array"))?.cast::<ArrowArray>();
            // SAFETY: capsules of these names hold these structures, and nobody else has them. They live, unreleased,
            // as long as `pairs`, which is longer than what is borrowed. Arrow's buffers are immutable.
            let binary = unsafe { Binary::borrow(schema.as_ref(), array.as_ref()) };
            binary.ok_or_else(|| PyTypeError::new_err("not an array of binary"))
        });
        let borrowed = borrowed.collect::<PyResult<Vec<_>>>()?;
        let reader = &mut self.reader;
        let places = py.detach(|| batch::read(reader, &borrowed));
        let places = places.ok_or_else(|| PyOverflowError::new_err("more than 2 GiB at a time"))?;
        let units = |mask: u8| (0..4).filter(|bit| mask >> bit & 1 == 1).map(|bit| UNITS[bit]).collect();
        let marked = reader.notes.take().into_iter().zip(&self.times).filter(|(marks, _)| *marks != Marks::default());
        let marks = marked.map(|(marks, path)| (path.clone(), units(marks.units), units(marks.unlikely), marks.cut));
        let marks = marks.collect();
        let unknown = reader.unknown.take().into_iter().map(|field| {
            let name = String::from_utf8_lossy(&field.name).into_owned();
            (self.objects[field.object].clone(), name, field.records, field.first)
        });
        Ok(Outcome {
            unknown: unknown.collect(),
            marks,
            columns: Exported::columns(&mut reader.root),
            rows: Exported::numbers(places.rows),
            aside: Exported::numbers(places.aside),
        })
    }
}

/// A column's path, the digits of the units its numbers had, those that gave unlikely times, and whether times were cut.
type Mark = (String, Vec<u32>, Vec<u32>, bool);

/// What became of a batch. Each of the three addresses is one of an `ArrowArray`, good for one import.
#[pyclass(frozen)]
struct Outcome {
    columns: Exported,
    rows: Exported,
    aside: Exported,
    /// Fields that no column takes: the object's path, the name, rows that had it, the first of them.
    #[pyo3(get)]
    unknown: Vec<(String, String, usize, usize)>,
    /// What people should know about timestamp columns.
    #[pyo3(get)]
    marks: Vec<Mark>,
}

#[pymethods]
impl Outcome {
    /// The table, as a struct.
    #[getter]
    fn columns(&self) -> usize {
        self.columns.address()
    }

    /// The message of each row of the table, int64.
    #[getter]
    fn rows(&self) -> usize {
        self.rows.address()
    }

    /// The messages that are no rows, ascending, int64.
    #[getter]
    fn aside(&self) -> usize {
        self.aside.address()
    }
}

/// The jobs of batcher that are done for each record.
#[pymodule]
fn batcher_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Decoder>()?;
    module.add_class::<Outcome>()?;
    #[cfg(unix)]
    crate::python_fetch::add(module)?;
    Ok(())
}
