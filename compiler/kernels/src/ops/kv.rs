//! The paged KV cache: addresses, stores, and the kernel that stores without a product before it.

use super::byte_rows::{ByteRow, INTEGERS, integer, scale_of};
use super::norm::Values;
use crate::env::{Count, Env, RowElem, Rows, Scratch};
use crate::formats::e4m3;
use crate::kir::{BinOp, Builder, Cast, Cond, Elem, Function, Ty, Val};
use crate::layout::{KvLayout, LANES, PAGE};

/// A layer's cache and the size of a page of all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvCache {
    /// The layer's layout in a page.
    pub layout: KvLayout,
    /// Bytes of a page, all layers together.
    pub page_bytes: usize,
}

/// What a page has of each head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Keys: `[head][element][position]`.
    Keys,
    /// Values: `[head][position][element]`.
    Values,
    /// How much attention the positions got: `[head][position]` in f32, where that is counted.
    Counts,
}

const VECTOR: Ty = Ty::vector(Elem::F32, LANES);

impl KvLayout {
    /// Elements of one byte (i8) as f32, without their scales.
    pub fn wide(&self, b: &mut Builder, bytes: Val) -> Val {
        if self.is_e4m3 {
            return e4m3::emit_decode(b, bytes);
        }
        let ty = b.ty(bytes);
        let wide = b.cast(Cast::SExt, bytes, ty.with_elem(Elem::I32));
        b.cast(Cast::IntToFloat, wide, ty.with_elem(Elem::F32))
    }
}

impl KvCache {
    /// Address of this layer in the page of block `block` (i64) of sequence `seq` (i64).
    pub fn page(&self, env: &mut Env, seq: Val, block: Val) -> Val {
        let stride = env.field("page_table_stride");
        let row = env.b.mul(seq, stride);
        let index = env.b.add(row, block);
        let page = env.step_index("page_table", index);
        let base = env.field("kv");
        let page = env.at(base, page, self.page_bytes);
        env.b.ptr_add(page, env.kv)
    }

    /// Address of head `head` (i64) of a part, at a page of this layer.
    pub fn head(&self, env: &mut Env, page: Val, part: Part, head: Val) -> Val {
        let part = match part {
            Part::Keys => page,
            Part::Values => env.b.ptr_add_const(page, self.layout.value_offset()),
            Part::Counts => {
                let counts = env.b.ptr_add_const(page, self.layout.count_offset());
                return env.at(counts, head, KvLayout::HEAD_COUNTS);
            }
        };
        env.at(part, head, self.layout.head_bytes())
    }

    /// Page address and slot in the page for token `t` (i64).
    pub fn slot(&self, env: &mut Env, t: Val) -> (Val, Val) {
        let (pos, seq) = (env.step_index("positions", t), env.step_index("seqs", t));
        let page_len = env.b.index(PAGE);
        let block = env.b.div(pos, page_len);
        let slot = env.b.rem(pos, page_len);
        (self.page(env, seq, block), slot)
    }

    /// Loads `lanes` f32 from the cache at `ptr + offset` elements.
    pub fn load(&self, env: &mut Env, ptr: Val, offset: usize, lanes: u16) -> Val {
        let bytes = (offset * self.layout.elem_bytes) as i32;
        let ty = Ty::vector(Elem::F32, lanes);
        match self.layout.elem_bytes {
            1 => {
                let q = env.b.load(ty.with_elem(Elem::I8), ptr, bytes);
                self.layout.wide(&mut env.b, q)
            }
            2 => {
                let h = env.b.load(ty.with_elem(Elem::I16), ptr, bytes);
                env.b.cast(Cast::F16ToF32, h, ty)
            }
            _ => env.b.load(ty, ptr, bytes),
        }
    }

    /// The scales of the positions of a page, at a head of a part; none where elements need none.
    pub fn scales(&self, env: &mut Env, head: Val) -> Option<Vec<Val>> {
        let offset = |i: usize| (self.layout.scale_offset() + 4 * i) as i32;
        let vectors = (0..PAGE).step_by(LANES as usize);
        self.layout.has_scales().then(|| vectors.map(|i| env.b.load(VECTOR, head, offset(i))).collect())
    }

    /// Finds the scale of the head at `from`, stores it for the slot, and gives what elements are multiplied
    /// with before they are rounded, as many as are stored at once. None where elements have no scale.
    fn store_scale(&self, env: &mut Env, base: Val, slot: Val, from: Val) -> Option<Val> {
        if !self.layout.has_scales() {
            return None;
        }
        let row = ByteRow { k: self.layout.head_dim };
        let values = Values::new(env, None, (from, RowElem::F32), row.k);
        let largest = row.largest(env, &values);
        let levels = if self.layout.is_e4m3 { (e4m3::LARGEST / e4m3::RAISE, e4m3::LARGEST) } else { INTEGERS };
        let (scale, inverse) = scale_of(env, largest, levels);
        let to = env.at(base, slot, 4);
        let store = |env: &mut Env| env.b.store(scale, to, self.layout.scale_offset() as i32);
        if env.group.threads > 1 {
            let zero = env.b.index(0);
            let first = env.b.cmp(Cond::Eq, env.group.lane, zero);
            env.if_then(first, store);
        } else {
            store(env);
        }
        let lanes = env.lanes();
        Some(env.b.splat(inverse, lanes))
    }

    /// Values as the cache holds them.
    fn narrow(&self, env: &mut Env, v: Val, inverse: Option<Val>) -> Val {
        let ty = env.b.ty(v);
        match (self.layout.elem_bytes, inverse) {
            (_, Some(inverse)) if self.layout.is_e4m3 => {
                let scaled = env.b.mul(v, inverse);
                e4m3::emit_encode(&mut env.b, scaled)
            }
            (_, Some(inverse)) => {
                let q = integer(env, v, inverse);
                env.b.cast(Cast::Trunc, q, ty.with_elem(Elem::I8))
            }
            (1, None) => unreachable!("bytes have a scale"),
            (2, None) => env.b.cast(Cast::F32ToF16, v, ty.with_elem(Elem::I16)),
            _ => v,
        }
    }

    /// Stores the `head_dim` elements at `from` (f32, padded to whole vectors) as head `head` of a
    /// part at a token's page and slot.
    pub fn store_head(&self, env: &mut Env, (page, slot): (Val, Val), part: Part, head: Val, from: Val) {
        let base = self.head(env, page, part, head);
        let elem = self.layout.elem_bytes;
        let (start, stride) = self.first_element(env, base, part, slot);
        let inverse = self.store_scale(env, base, slot, from);
        if env.group.threads > 1 {
            return env.one_by_one(self.layout.head_dim, |env, e| {
                let x = env.at(from, e, 4);
                let x = env.b.load(Ty::F32, x, 0);
                let to = env.at(start, e, stride * elem);
                let x = self.narrow(env, x, inverse);
                env.b.store(x, to, 0);
            });
        }
        let mut e = 0;
        while e < self.layout.head_dim {
            let v = env.b.load(VECTOR, from, 4 * e as i32);
            let valid = (self.layout.head_dim - e).min(LANES as usize);
            let v = self.narrow(env, v, inverse);
            if stride == 1 && valid == LANES as usize {
                env.b.store(v, start, (e * elem) as i32);
            } else {
                for lane in 0..valid {
                    let x = env.b.extract(v, lane as u16);
                    env.b.store(x, start, ((e + lane) * stride * elem) as i32);
                }
            }
            e += LANES as usize;
        }
    }

    /// Where the first element of a slot is, at a head of a part, and elements from each to the next.
    fn first_element(&self, env: &mut Env, base: Val, part: Part, slot: Val) -> (Val, usize) {
        let elem = self.layout.elem_bytes;
        match part {
            Part::Keys => (env.at(base, slot, elem), PAGE),
            Part::Values => (env.at(base, slot, self.layout.head_dim * elem), 1),
            Part::Counts => unreachable!("counts are no elements"),
        }
    }

    /// Stores element `element` (i64) of head `head` of a part whose elements have no scale.
    pub fn store_element(&self, env: &mut Env, at: (Val, Val), part: Part, (head, element): (Val, Val), v: Val) {
        let base = self.head(env, at.0, part, head);
        let (start, stride) = self.first_element(env, base, part, at.1);
        let to = env.at(start, element, stride * self.layout.elem_bytes);
        let v = self.narrow(env, v, None);
        env.b.store(v, to, 0);
    }
}

/// Stores keys and values computed by other kernels. Tokens are shared out.
#[derive(Clone, Debug, PartialEq)]
pub struct KvAppendKernel {
    /// The cache.
    pub cache: KvCache,
    /// Keys, `heads * head_dim` wide.
    pub k: Rows,
    /// Values, of the same width.
    pub v: Rows,
}

impl KvAppendKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let n = env.count(Count::Tokens);
        env.own_rows(n, |env, t| {
            let at = self.cache.slot(env, t);
            for (part, rows) in [(Part::Keys, &self.k), (Part::Values, &self.v)] {
                let from = env.row(rows, t);
                env.for_const(self.cache.layout.heads, 1, |env, h| {
                    let from = env.at(from, h, self.cache.layout.head_dim * 4);
                    self.cache.store_head(env, at, part, h, from);
                });
            }
        });
        env.finish()
    }
}

/// `i64` constant helper for masks: lane numbers `base..base + LANES` as i32.
pub(crate) fn lane_numbers(env: &mut Env, base: Val) -> Val {
    // Lane l of `ramp` is l, made by doubling: [0,1], [0,1,2,3], ..
    let ty = |lanes| Ty::vector(Elem::I32, lanes);
    let (zero, one) = (env.b.int(ty(2), 0), env.b.int(ty(2), 1));
    let mut ramp = env.b.shuffle(zero, one, vec![0, 2]);
    let mut lanes = 2;
    while lanes < LANES {
        let k = env.b.int(ty(lanes), i64::from(lanes));
        let upper = env.b.bin(BinOp::Add, ramp, k);
        ramp = env.b.shuffle(ramp, upper, (0..2 * lanes).collect());
        lanes *= 2;
    }
    let base = env.b.cast(Cast::Trunc, base, Ty::I32);
    let base = env.b.splat(base, LANES);
    env.b.add(ramp, base)
}
