//! Products that the matrix units of four warps make together: see [`crate::kir::Op::Wgmma`].
//!
//! Each warp computes its own rows as soon as it comes to the instruction; what hardware does meanwhile is checked
//! instead. The result is a mark, which only another product or the wait knows what to do with: as a number it is a
//! NaN. Sums that a product or a wait has taken are gone, as the registers would be. What is read in shared memory is
//! read once more at the wait, the latest moment allowed, and must be what it was. Bytes that a thread has written
//! itself, and not the copy engine, must have been fenced by it, and a barrier must follow.

use super::access::Access;
use super::error::{Addr, Fault, InterpError};
use super::grid::Grid;
use super::meet::WARP;
use super::memory::{Memory, Place};
use super::mma::{in_rows, in_sums, word};
use super::thread::Thread;
use crate::kir::inst::Mma;
use std::collections::BTreeMap;
use std::ops::Range;

/// Columns of four lanes of the sums.
const COLUMNS: usize = 8;
/// Bytes of a line, and of as many lines as differ in how pieces are exchanged.
const LINE: u64 = 128;
const LINES: u64 = 8 * LINE;
/// Bytes of a piece, and of a column in a product.
const PIECE: u64 = 16;
const COLUMN: u64 = 2 * PIECE;
/// What a lane of a result holds until the wait, below the mark's number: a NaN.
const POISON: u64 = 0x7fc0_0001;

/// A product. Places in the frame, but for the number of lanes.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub kind: Mma,
    pub to: usize,
    pub lanes: usize,
    pub acc: usize,
    pub a: usize,
    pub b: usize,
}

/// The results that a thread cannot use yet, by the number of their mark.
#[derive(Default)]
pub(super) struct UnderWay {
    sums: BTreeMap<u64, Vec<u64>>,
    last: u64,
}

impl UnderWay {
    /// A mark for a result, as lanes.
    fn keep(&mut self, sums: Vec<u64>) -> Vec<u64> {
        self.last += 1;
        let mark = vec![self.last << 32 | POISON; sums.len()];
        self.sums.insert(self.last, sums);
        mark
    }

    /// The sums that lanes stand for, which may be marks.
    fn take(&mut self, lanes: &[u64]) -> Result<Vec<u64>, Fault> {
        match lanes[0] >> 32 {
            0 => Ok(lanes.to_vec()),
            mark => {
                self.sums.remove(&mark).ok_or(Fault::Operand("these sums were taken by a product or a wait before"))
            }
        }
    }

    /// Whether all was waited for.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }
}

/// Columns that a product reads.
pub(super) struct Columns {
    b: u64,
    words: Vec<[u32; 8]>,
}

impl Grid<'_> {
    /// Begins a product of a warp.
    pub fn begin_product(&mut self, warp: Range<usize>, product: Product) -> Result<(), InterpError> {
        let done = self.product(warp.clone(), product);
        done.map_err(|fault| self.fault_at_stop(warp.start, fault))
    }

    fn product(&mut self, warp: Range<usize>, product: Product) -> Result<(), Fault> {
        self.access.thread = warp.start as u32;
        let columns = Columns::read(product, &self.threads[warp.clone()], self.memory, &self.access)?;
        multiply(product, &mut self.threads[warp.clone()], &columns.words)?;
        self.products.entry(warp.start).or_default().push(columns);
        Ok(())
    }

    /// Waits for the products of a warp: the sums `from` become the lanes at `to`.
    pub fn end_products(
        &mut self,
        warp: Range<usize>,
        (to, from, lanes): (usize, usize, usize),
    ) -> Result<(), InterpError> {
        self.access.thread = warp.start as u32;
        let done = self.finish(warp.clone(), (to, from, lanes));
        done.map_err(|fault| self.fault_at_stop(warp.start, fault))
    }

    fn finish(&mut self, warp: Range<usize>, (to, from, lanes): (usize, usize, usize)) -> Result<(), Fault> {
        for columns in self.products.remove(&warp.start).unwrap_or_default() {
            let now = read_columns(columns.b, columns.words.len(), self.memory, &self.access)?;
            if now != columns.words {
                return Err(Fault::Operand("what a product reads was written before the wait for it"));
            }
        }
        for thread in &mut self.threads[warp] {
            let marks = thread.places()[from..from + lanes].to_vec();
            let sums = thread.under_way.take(&marks)?;
            thread.places()[to..to + lanes].copy_from_slice(&sums);
        }
        Ok(())
    }
}

impl Columns {
    fn read(product: Product, warp: &[Thread], memory: &mut Memory, access: &Access) -> Result<Columns, Fault> {
        let addresses = warp.iter().map(|thread| thread.place(product.b));
        let b = addresses.clone().next().ok_or(Fault::Operand("the worker has no warp of 32 threads"))?;
        if addresses.into_iter().any(|other| other != b) {
            return Err(Fault::Operand("the threads of a warp have different columns"));
        }
        let words = read_columns(b, product.lanes / 4 * COLUMNS, memory, access)?;
        Ok(Columns { b, words })
    }
}

/// The words of each column.
fn read_columns(b: u64, count: usize, memory: &mut Memory, access: &Access) -> Result<Vec<[u32; 8]>, Fault> {
    let within = b % LINES;
    if !within.is_multiple_of(COLUMN) || within >= LINE {
        return Err(Fault::Operand("columns do not begin in the first line of 1024 bytes at a multiple of 32"));
    }
    let mut columns = vec![[0; 8]; count];
    for (c, words) in (0..).zip(&mut columns) {
        for (piece, words) in (within / PIECE..).zip(words.chunks_mut(4)) {
            let at = b - within + c * LINE + (piece ^ (c % 8)) * PIECE;
            let place = Place { addr: Addr(at), len: PIECE as usize, align: PIECE as u32 };
            let bytes = memory.load_fenced(place, access)?;
            for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
            }
        }
    }
    Ok(columns)
}

/// Leaves in each thread a mark for its part of the result.
fn multiply(product: Product, warp: &mut [Thread], columns: &[[u32; 8]]) -> Result<(), Fault> {
    let Product { kind, to, lanes, acc, a, .. } = product;
    let warp: &mut [Thread; WARP] =
        warp.try_into().map_err(|_| Fault::Operand("the worker has no warp of 32 threads"))?;
    let mut rows = [[0u32; 8]; 16];
    for (lane, thread) in warp.iter().enumerate() {
        for i in 0..4 {
            let (row, word) = in_rows(lane, i);
            rows[row][word] = thread.place(a + i) as u32;
        }
    }
    for (lane, thread) in warp.iter_mut().enumerate() {
        let lanes: Vec<u64> = thread.places()[acc..acc + lanes].to_vec();
        let mut sums = thread.under_way.take(&lanes)?;
        for (i, sum) in sums.iter_mut().enumerate() {
            let (row, column) = in_sums(lane, i % 4);
            let both = rows[row].iter().zip(&columns[i / 4 * COLUMNS + column]);
            *sum = u64::from(both.fold(*sum as u32, |sum, (a, b)| word(kind, sum, *a, *b)));
        }
        let mark = thread.under_way.keep(sums);
        thread.places()[to..to + mark.len()].copy_from_slice(&mark);
    }
    Ok(())
}
