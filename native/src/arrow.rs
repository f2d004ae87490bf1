//! Arrow's C data interface: binary arrays in, finished columns out.
//!
//! Laws: what comes in is borrowed and never written; what goes out is a vector that was filled here, kept alive by the
//! array until the one who imported it releases it. Nothing else in this crate knows a pointer.
#![allow(unsafe_code)] // the interface is one of pointers; each use says why it is sound

use std::any::Any;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use crate::column::{Bits, Column, Object, Values, each_vector};

/// `struct ArrowSchema` of the interface.
#[repr(C)]
pub struct ArrowSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut ArrowSchema,
    dictionary: *mut ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    private_data: *mut c_void,
}

/// `struct ArrowArray` of the interface.
#[repr(C)]
pub struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut ArrowArray,
    dictionary: *mut ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

/// Values of bytes that somebody else owns.
pub struct Binary<'a> {
    offsets: &'a [i32],
    data: &'a [u8],
    /// Bits, and the first of ours.
    validity: Option<(&'a [u8], usize)>,
}

impl<'a> Binary<'a> {
    /// Borrow an array; None where it is not one of `binary`.
    ///
    /// # Safety
    /// Both describe one array as the interface says, and it is neither released nor changed while the result lives.
    pub unsafe fn borrow(schema: &'a ArrowSchema, array: &'a ArrowArray) -> Option<Self> {
        // SAFETY: the interface has a string that ends with a NUL here.
        let format = unsafe { CStr::from_ptr(schema.format) };
        if format.to_bytes() != b"z" || array.n_buffers != 3 || array.length < 0 || array.offset < 0 {
            return None;
        }
        let (offset, length) = (array.offset as usize, array.length as usize);
        if length == 0 {
            return Some(Binary { offsets: &[0], data: &[], validity: None });
        }
        // SAFETY: there are as many buffers as it says. The second has one offset more than there are values, counted
        // from the beginning of the buffer; the interface asks for the alignment of the type.
        let (buffers, offsets) = unsafe {
            let buffers = std::slice::from_raw_parts(array.buffers, 3);
            (buffers, std::slice::from_raw_parts(buffers[1].cast::<i32>().add(offset), length + 1))
        };
        let end = usize::try_from(offsets[length]).ok()?;
        if end > 0 && buffers[2].is_null() {
            return None;
        }
        // SAFETY: the data reach at least to the last offset. An empty slice is not made of a null pointer.
        let data = if end == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(buffers[2].cast::<u8>(), end) } };
        let validity = (array.null_count != 0 && !buffers[0].is_null()).then(|| {
            // SAFETY: where there is a first buffer, it has a bit for each value, also for those before the offset.
            let bits = unsafe { std::slice::from_raw_parts(buffers[0].cast::<u8>(), (offset + length).div_ceil(8)) };
            (bits, offset)
        });
        Some(Binary { offsets, data, validity })
    }

    /// Make one of slices, as the interface would have them.
    pub fn new(offsets: &'a [i32], data: &'a [u8]) -> Self {
        Binary { offsets, data, validity: None }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all values.
    pub fn size(&self) -> usize {
        (self.offsets[self.len()] as usize).saturating_sub(self.offsets[0] as usize)
    }

    /// A value and what stands behind it, with the length of the value; None for a null.
    #[inline(always)]
    pub fn get(&self, row: usize) -> Option<(&'a [u8], usize)> {
        if let Some((bits, offset)) = self.validity {
            let at = offset + row;
            if bits[at / 8] >> (at % 8) & 1 == 0 {
                return None;
            }
        }
        let (start, end) = (self.offsets[row] as usize, self.offsets[row + 1] as usize);
        Some((&self.data[start..], end - start))
    }
}

/// What an exported array keeps alive.
struct Owned {
    blocks: Vec<Block>,
    pointers: Vec<*const c_void>,
    children: Vec<*mut ArrowArray>,
}

/// A finished vector, and where its values are.
struct Block {
    at: *const c_void,
    _vector: Option<Box<dyn Any + Send>>,
}

#[repr(align(64))]
struct Nothing([u8; 64]);
static NOTHING: Nothing = Nothing([0; 64]);

/// A vector's values stay where they are when the vector itself is moved into a box.
fn block<T: Send + 'static>(vector: Vec<T>) -> Block {
    // Nobody has to look at the address of what is empty, but some do.
    let at = if vector.is_empty() { NOTHING.0.as_ptr().cast() } else { vector.as_ptr().cast() };
    Block { at, _vector: Some(Box::new(vector)) }
}

fn validity(bits: Option<Bits>) -> Block {
    bits.map_or(Block { at: ptr::null(), _vector: None }, |bits| block(bits.bytes))
}

unsafe extern "C" fn release(array: *mut ArrowArray) {
    // SAFETY: the interface calls this once, with an array that `export` made: its private data are the box made there,
    // and each child is a box of its own, released here unless somebody took it out and did so before.
    unsafe {
        let array = &mut *array;
        let owned = Box::from_raw(array.private_data.cast::<Owned>());
        for child in &owned.children {
            if let Some(release) = (**child).release {
                release(*child);
            }
            drop(Box::from_raw(*child));
        }
        array.release = None;
    }
}

fn export(length: usize, nulls: usize, blocks: Vec<Block>, children: Vec<ArrowArray>) -> ArrowArray {
    let mut owned = Box::new(Owned {
        pointers: blocks.iter().map(|block| block.at).collect(),
        children: children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect(),
        blocks,
    });
    ArrowArray {
        length: length as i64,
        null_count: nulls as i64,
        offset: 0,
        n_buffers: owned.blocks.len() as i64,
        n_children: owned.children.len() as i64,
        buffers: owned.pointers.as_mut_ptr(),
        children: owned.children.as_mut_ptr(),
        dictionary: ptr::null_mut(),
        release: Some(release),
        private_data: Box::into_raw(owned).cast(),
    }
}

/// Make a column of 64-bit integers.
pub(crate) fn int64(values: Vec<i64>, nulls: usize, bits: Option<Bits>) -> ArrowArray {
    export(values.len(), nulls, vec![validity(bits), block(values)], vec![])
}

/// Make a column of bytes or text: one end more than there are values, the first 0.
pub(crate) fn binary(ends: Vec<i32>, bytes: Vec<u8>, nulls: usize, bits: Option<Bits>) -> ArrowArray {
    export(ends.len() - 1, nulls, vec![validity(bits), block(ends), block(bytes)], vec![])
}

/// Make a column of lists, with ends as `binary` has them.
pub(crate) fn list(ends: Vec<i32>, items: ArrowArray, nulls: usize, bits: Option<Bits>) -> ArrowArray {
    export(ends.len() - 1, nulls, vec![validity(bits), block(ends)], vec![items])
}

/// Make a column of structures of this many rows, none of them null.
pub(crate) fn structure(length: usize, columns: Vec<ArrowArray>) -> ArrowArray {
    export(length, 0, vec![validity(None)], columns)
}

/// An array on its way out. Dropped, it releases what nobody imported.
pub struct Exported(Box<UnsafeCell<ArrowArray>>);

// SAFETY: what an exported array owns are vectors, which any thread may read and free; there is no other pointer to it.
unsafe impl Send for Exported {}
// SAFETY: a shared reference gives away nothing but the address. Who writes there, to import, does so once.
unsafe impl Sync for Exported {}

impl Exported {
    /// Export the columns of an object and begin them anew.
    pub fn columns(object: &mut Object) -> Exported {
        let length = std::mem::take(&mut object.len);
        let columns = object.columns.iter_mut().map(take).collect();
        Exported::of(export(length, 0, vec![validity(None)], columns))
    }

    /// Export a column of 64-bit integers without nulls.
    pub fn numbers(values: Vec<i64>) -> Exported {
        Exported::of(export(values.len(), 0, vec![validity(None), block(values)], vec![]))
    }

    /// Export columns of this many rows each.
    pub(crate) fn table(length: usize, columns: Vec<ArrowArray>) -> Exported {
        Exported::of(structure(length, columns))
    }

    fn of(array: ArrowArray) -> Exported {
        Exported(Box::new(UnsafeCell::new(array)))
    }

    /// Where it is, for one import. It stays there as long as this lives; whoever imports it marks it as released.
    pub fn address(&self) -> usize {
        self.0.get() as usize
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        let array = self.0.get_mut();
        if let Some(release) = array.release {
            // SAFETY: it was made by `export` and is not released: an import would have said so in `release`.
            unsafe { release(array) };
        }
    }
}

fn take(column: &mut Column) -> ArrowArray {
    let (length, nulls) = (std::mem::take(&mut column.len), std::mem::take(&mut column.nulls));
    let bits = validity(column.validity.take());
    each_vector!(&mut column.values, vector => export(length, nulls, vec![bits, block(std::mem::take(vector))], vec![]), _ => {
        match &mut column.values {
            Values::Bool(values) => export(length, nulls, vec![bits, block(std::mem::take(values).bytes)], vec![]),
            Values::Text { large, ends, bytes, .. } => {
                let (ends, bytes) = (begun(ends), block(std::mem::take(bytes)));
                let ends = if *large { block(ends.into_iter().map(i64::from).collect()) } else { block(ends) };
                export(length, nulls, vec![bits, ends, bytes], vec![])
            }
            Values::List { ends, items } => export(length, nulls, vec![bits, block(begun(ends))], vec![take(items)]),
            Values::Map { ends, keys, values } => {
                let entries = export(keys.len, 0, vec![validity(None)], vec![take(keys), take(values)]);
                export(length, nulls, vec![bits, block(begun(ends))], vec![entries])
            }
            Values::Struct(object) => {
                object.len = 0;
                export(length, nulls, vec![bits], object.columns.iter_mut().map(take).collect())
            }
            // Arrow's nulls have no buffer at all.
            _ => export(length, length, vec![], vec![]),
        }
    })
}

/// Take the ends, and begin new ones.
fn begun(ends: &mut Vec<i32>) -> Vec<i32> {
    std::mem::replace(ends, vec![0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_imports_is_freed_and_what_was_imported_is_not_freed_twice() {
        let mut column = Column::new(true, Values::I64(vec![7]));
        column.count();
        column.push_null();
        let mut object = Object::new(0, vec![("a".into(), column)], false);
        object.len = 2;
        drop(Exported::columns(&mut object));
        let mut exported = Exported::numbers(vec![1, 2, 3]);
        let array = exported.0.get_mut();
        let release = array.release.unwrap();
        // SAFETY: as an importer does it, once.
        unsafe { release(array) };
        assert!(array.release.is_none());
    }

    #[test]
    fn values_are_borrowed_with_what_stands_behind_them() {
        let values = Binary::new(&[2, 4, 4, 5], b"xxabcd");
        assert_eq!((values.len(), values.size()), (3, 3));
        assert_eq!(values.get(0), Some((&b"abcd"[..], 2)));
        assert_eq!(values.get(1), Some((&b"cd"[..], 0)));
    }
}
