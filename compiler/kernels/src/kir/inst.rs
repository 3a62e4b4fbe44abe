//! The instruction set.
//!
//! Vector instructions work lane by lane. Integer arithmetic wraps. Floating-point arithmetic is
//! IEEE with round to nearest even, never reassociated or contracted: `fma` rounds once, `mul`
//! followed by `add` twice.

use super::func::{Region, Val};

/// Instructions with one operand; the result has its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnOp {
    /// Negation (float: flips the sign bit).
    Neg,
    /// Float: clears the sign bit.
    Abs,
    /// Float: square root.
    Sqrt,
    /// Float: nearest integer, ties to even.
    Round,
    /// Float: largest integer not above.
    Floor,
    /// Integer or truth value: all bits flipped.
    Not,
}

/// Instructions with two operands of one type; the result has it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinOp {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Float: quotient. Integer: signed quotient, rounded to zero; the divisor is not 0 or -1.
    Div,
    /// Integer: signed remainder; the divisor is not 0 or -1.
    Rem,
    /// Smaller one; integers as signed; floats as `a < b ? a : b`.
    Min,
    /// Larger one; integers as signed; floats as `a > b ? a : b`.
    Max,
    /// Bitwise and (integers, truth values).
    And,
    /// Bitwise or (integers, truth values).
    Or,
    /// Bitwise exclusive or (integers, truth values).
    Xor,
    /// Shift left by less than the width.
    Shl,
    /// Shift right by less than the width, zeros in.
    LShr,
    /// Shift right by less than the width, sign in.
    AShr,
}

/// Comparisons; the result is i1 with as many lanes. Integers compare as signed; with a NaN every
/// comparison but `Ne` is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Cond {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Conversions to the result's type, with as many lanes (but for `Bitcast`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cast {
    /// Integer to a wider one, sign extended.
    SExt,
    /// Integer or truth value to a wider one, zero extended.
    ZExt,
    /// Integer to a narrower one, upper bits dropped.
    Trunc,
    /// Signed integer to float, rounded to nearest.
    IntToFloat,
    /// Float to signed integer, rounded to zero; the value fits.
    FloatToInt,
    /// f32 to f64.
    FExt,
    /// f64 to f32, rounded to nearest.
    FTrunc,
    /// The same bits in a type of the same size; lanes may change, lower lanes hold lower bits.
    Bitcast,
    /// i16 holding binary16 to f32, exact.
    F16ToF32,
    /// f32 to i16 holding binary16, rounded to nearest even, overflow to infinity.
    F32ToF16,
}

/// How memory is going to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hint {
    /// Nothing special.
    #[default]
    None,
    /// Read or written once: need not stay in caches.
    Stream,
    /// Read only, and never written while the program runs.
    Constant,
}

/// The nearest cache that a line is brought into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheLevel {
    /// A core's first, which has room for few lines on their way: for what is needed soon.
    L1,
    /// The second: for what is needed later. On GPUs, whose first caches hold nothing ahead, always this.
    L2,
}

/// What a group's matrix unit multiplies: `d = a * b + acc` of a 16 x K and a K x 8 matrix spread over
/// the 32 threads of a warp. Thread `4 * g + t` holds of `acc` and `d` elements `(g, 2t)`, `(g, 2t + 1)`,
/// `(g + 8, 2t)`, `(g + 8, 2t + 1)`. One i32 holds consecutive elements of K: of `a` in the rows `g`,
/// `g + 8`, `g`, `g + 8`, the first two in the word `t` of the row, the others in word `t + 4`; of `b` in
/// the column `g`, words `t` and `t + 4`. (PTX ISA, matrix fragments of mma.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mma {
    /// bf16 pairs, K = 16, f32 sums; the order of the sums is the hardware's.
    Bf16,
    /// f16 pairs, K = 16, f32 sums; the order of the sums is the hardware's.
    F16,
    /// Fours of unsigned (`a`) and signed (`b`) bytes, K = 32, i32 sums.
    U8S8,
    /// Fours of signed bytes, K = 32, i32 sums.
    S8S8,
}

/// What a processor's tiles multiply in memory: rows of x with panels of 16 columns, adding to sums that
/// stand there in rows, the panels side by side. x is taken in blocks of 64 bytes, 16 words of 32 bits each; a word
/// is multiplied with the 16 words of its vector in the panel, where vectors follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiles {
    /// What words hold.
    pub kind: TileKind,
    /// The most rows, 16 or 32.
    pub most_rows: u32,
    /// Panels, 1 or 2.
    pub panels: u32,
    /// Blocks of each row.
    pub blocks: u32,
    /// Bytes from one row of x to the next.
    pub x_stride: u32,
    /// Bytes from one panel to the next.
    pub panel_stride: u32,
    /// Bytes from one row of sums to the next.
    pub sum_stride: u32,
}

/// What a word of 32 bits holds where [`Tiles`] are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TileKind {
    /// Four bytes, signed ones of x and unsigned ones of panels: sums are i32 as those of [`Op::Dot4I8`].
    I8,
    /// Two bf16. In each block the products of the lower halves and those of the upper ones are summed by
    /// themselves from zero, a single-rounded fma each; the two sums are added, then to the sum in memory, an f32.
    /// Subnormals may be taken as zero.
    Bf16,
}

/// What an instruction does. Operand and result types are in [`super::verify`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Op {
    /// Integer (or i1) constant in every lane.
    Int(i64),
    /// Float constant in every lane; for f32 the value is one.
    Float(f64),
    /// One operand.
    Un(UnOp, Val),
    /// Two operands.
    Bin(BinOp, Val, Val),
    /// `a * b + c` of floats, rounded once.
    Fma(Val, Val, Val),
    /// Comparison.
    Cmp(Cond, Val, Val),
    /// `c ? a : b`; `c` is i1 with the lanes of `a`, or a scalar i1.
    Select(Val, Val, Val),
    /// Conversion.
    Cast(Cast, Val),
    /// A scalar in every lane.
    Splat(Val),
    /// Lane of a vector as a scalar.
    Extract(Val, u16),
    /// The vector with one lane replaced by a scalar.
    Insert(Val, u16, Val),
    /// Lanes picked from the concatenation of two vectors of one type; the result has as many
    /// lanes as the list.
    Shuffle(Val, Val, Vec<u16>),
    /// `ptr + bytes`.
    PtrAdd(Val, Val),
    /// Value at `ptr + offset`; `align` is the guaranteed alignment in bytes.
    Load { ptr: Val, offset: i32, align: u32, hint: Hint },
    /// Stores `value` at `ptr + offset`.
    Store { ptr: Val, offset: i32, value: Val, align: u32, hint: Hint },
    /// Asks for the cache line at `ptr + offset` soon; no effect on values, any address allowed.
    Prefetch { ptr: Val, offset: i32, to: CacheLevel },
    /// Uninitialised memory of the function's frame, aligned to 64 bytes; only outside loops.
    Stack { bytes: u32 },
    /// `a.lo * b.lo + (a.hi * b.hi + acc)` where each i32 lane of a and b holds two bf16: the upper
    /// half `hi` is added first, each step a single-rounded fma, subnormals as zero allowed.
    Dot2Bf16 { acc: Val, a: Val, b: Val },
    /// `acc + sum of 4 products` where each i32 lane of a holds 4 unsigned and of b 4 signed bytes.
    Dot4I8 { acc: Val, a: Val, b: Val },
    /// `acc + sum of 2 products` in each 16-bit half of an i32 lane: of the two unsigned bytes of a with the two
    /// signed bytes of b there. The sum saturates at 16 bits, the addition wraps.
    Dot2I8 { acc: Val, a: Val, b: Val },
    /// `acc + low half + high half` of each i32 lane of a, the halves being signed.
    AddHalves { acc: Val, a: Val },
    /// See [`Tiles`]. `rows` (i64) is more than 0, at most `most_rows`, and more than 16 where that is 32.
    Tiles { tiles: Tiles, x: Val, panels: Val, sums: Val, rows: Val },
    /// Bytes looked up in tables of 16: lane i is lane `16 * (i / 16) + index_i` of the table. Both are
    /// i8 vectors of 16, 32 or 64 lanes; an index is less than 16.
    Table16 { table: Val, index: Val },
    /// Numbers looked up in a table: lane i is lane `index_i % 16` of the table. The table is f32x16, the index i32x16,
    /// taken as unsigned.
    Lookup16 { table: Val, index: Val },
    /// Runs the region for `i = lo, lo + step, ..` while `i < hi` (i64, step > 0). The region's
    /// parameters are `i` and the carried values, which start as `init`; what it yields is carried
    /// to the next round, and in the end the results.
    For { lo: Val, hi: Val, step: Val, init: Vec<Val>, body: Region },
    /// Runs one of two regions without parameters; what it yields are the results.
    If { cond: Val, then: Region, els: Region },
    /// Calls a function of the program. No results.
    Call { callee: String, args: Vec<Val> },
    /// Waits until all workers are here; what they wrote before is visible after. `phase` is
    /// passed to the runtime. Every worker must reach the same barriers in the same order.
    Barrier { phase: u32 },
    /// Tells the other workers that this one has come to a barrier which [`Op::Await`] waits at. All threads of the
    /// worker must reach it together; up to the wait it calls only functions that store nothing.
    Arrive,
    /// Waits at the barrier that [`Op::Arrive`] has told of: together they are an [`Op::Barrier`].
    Await { phase: u32 },
    /// This thread's number in its worker, i64; a worker is a group of threads on a GPU.
    Thread,
    /// Memory that the worker's threads share, aligned to 1024 bytes, of at least `bytes` bytes: the same
    /// for every kernel of a step, with what earlier ones have left there. Only outside loops.
    Shared { bytes: u32 },
    /// Waits until all threads of the worker are here; what they wrote before is visible to them after.
    GroupBarrier,
    /// The same among the 32 threads of a warp.
    WarpBarrier,
    /// The value that the thread whose number in the warp differs by the bits of `mask` has here: a scalar
    /// i32 or f32. All threads of the warp must reach it together.
    LaneXor { value: Val, mask: u8 },
    /// See [`Mma`]. All threads of the warp must reach it together.
    Mma { kind: Mma, acc: Val, a: Val, b: Val },
    /// Begins a product that the matrix units of four neighbouring warps make together, each for 16 rows of its own:
    /// `acc` (32, or 64 lanes for twice as many columns) stands for 8 columns in each four of its lanes, which are as
    /// in [`Mma`], and so is `a`. Column c lies in shared memory in line `c` of 128 bytes from the last multiple of
    /// 1024 at or before `b`, and of the line it is the elements from `b` on. Pieces of 16 bytes are exchanged: piece
    /// `p` of line `c` is where piece `p ^ (c % 8)` would be. The result is there after [`Op::WgmmaWait`]; until then
    /// only another product may add to it, and nobody may write what is read. All threads of the four warps must reach
    /// it together, with one `b`. (PTX ISA, wgmma with `a` in registers and 128-byte swizzling.)
    Wgmma { kind: Mma, acc: Val, a: Val, b: Val },
    /// Waits for all products that this warp has begun: `sums` is the result of the last one, and `kept` are the
    /// factors of all of them, which stay where they are up to here.
    WgmmaWait { sums: Val, kept: Vec<Val> },
    /// What this thread has written to shared memory can be read by [`Op::Wgmma`] after the next barrier.
    SharedFence,
    /// Four matrices of 8 x 8 halves (16 bits) in shared memory, transposed: threads `8i` to `8i + 7` give the
    /// addresses of the rows of matrix i (16 bytes each, aligned), and word i (i32) of thread `4g + t` holds
    /// elements `(2t, g)` and `(2t + 1, g)` of it. All threads of the warp must reach it together.
    LoadMatrix { ptr: Val },
    /// True in the worker that brings the counter (i32, zero at first) at `counter` to `total` by adding
    /// `add` (i32) to it; the counter is then zero again, and what the others wrote before they came here
    /// is visible. All threads of the worker must reach it together, and get the same answer.
    LastOf { counter: Val, add: Val, total: u32 },
    /// Begins to copy `bytes` (4, 8 or 16) from `from` to shared memory at `to`.
    AsyncCopy { to: Val, from: Val, bytes: u32 },
    /// Asks for `bytes` bytes (a multiple of 32) at `ptr` to be brought into the cache that all workers share.
    Fetch { ptr: Val, bytes: u32 },
    /// Closes a group of this thread's copies.
    AsyncCommit,
    /// Waits until at most `pending` of this thread's groups of copies are under way. Other threads see what
    /// was copied after a barrier.
    AsyncWait { pending: u32 },
    /// Makes a signal of the 8 bytes at `ptr` in shared memory, whose turns are of `copies` copies each.
    SignalBegin { ptr: Val, copies: u32 },
    /// Ends a signal none of whose copies is under way; the bytes are memory again.
    SignalEnd { ptr: Val },
    /// Begins to copy `bytes` (a multiple of 16) from `from` to shared memory at `to`, both aligned to 16 bytes,
    /// for the signal's turn.
    BulkCopy { to: Val, from: Val, bytes: u32, signal: Val },
    /// Waits until all copies of a turn of the signal are there: of the first and every second one after it
    /// if `parity` (i32) is 0, of the others if it is 1. Only the turn under way and the one before can be
    /// waited for.
    SignalWait { ptr: Val, parity: Val },
}

impl Op {
    /// Whether the instruction is one of a group of threads: only targets whose workers are groups have it.
    pub fn needs_group(&self) -> bool {
        let alone = matches!(
            self,
            Op::Arrive | Op::Await { .. } | Op::Thread | Op::Shared { .. } | Op::AsyncCopy { .. } | Op::Fetch { .. }
        );
        let waits = matches!(self, Op::GroupBarrier | Op::WarpBarrier | Op::AsyncCommit | Op::AsyncWait { .. });
        let products = matches!(
            self,
            Op::Mma { .. } | Op::LoadMatrix { .. } | Op::Wgmma { .. } | Op::WgmmaWait { .. } | Op::SharedFence
        );
        let signals =
            matches!(self, Op::SignalBegin { .. } | Op::SignalEnd { .. } | Op::BulkCopy { .. } | Op::SignalWait { .. });
        alone || waits || products || signals || matches!(self, Op::LaneXor { .. } | Op::LastOf { .. })
    }
}

/// An instruction with its results.
#[derive(Clone, Debug, PartialEq)]
pub struct Inst {
    /// Values it defines.
    pub results: Vec<Val>,
    /// What it does.
    pub op: Op,
}
