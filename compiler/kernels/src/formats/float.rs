//! Decoding of float weights.

use super::WeightFormat;
use crate::kir::{BinOp, Builder, Cast, Elem, Hint, Ty, Val};
use crate::layout::LANES;

impl WeightFormat {
    /// Emits the decoding of the step at `ptr + offset`: one f32 vector of the panel's rows for
    /// each k of the step.
    pub fn emit_decode(self, b: &mut Builder, ptr: Val, offset: i32) -> Vec<Val> {
        let f32s = Ty::vector(Elem::F32, LANES);
        match self {
            WeightFormat::F32 => vec![b.load(f32s, ptr, offset)],
            WeightFormat::F16 => {
                let h = b.load(Ty::vector(Elem::I16, LANES), ptr, offset);
                vec![b.cast(Cast::F16ToF32, h, f32s)]
            }
            WeightFormat::Bf16 => {
                let pairs = b.load(Ty::vector(Elem::I32, LANES), ptr, offset);
                bf16_pair(b, pairs).to_vec()
            }
            WeightFormat::Quant(scheme) => unreachable!("{scheme} is no float format"),
        }
    }

    /// Emits the decoding of the one k of the step at `ptr` that is number `k` in it. A product that
    /// uses a vector for many tokens reads the step once for each k: that takes a register less
    /// than keeping the packed step.
    pub fn emit_decode_one(self, b: &mut Builder, ptr: Val, k: usize) -> Val {
        match (self, k) {
            (WeightFormat::Bf16, 1) => {
                // Another element type than for k = 0, so that the two loads stay two.
                let ty = Ty::vector(Elem::I64, LANES / 2);
                let pairs = b.load_with(ty, ptr, 0, 4, Hint::None);
                let mask = b.int(ty, 0xffff_0000_ffff_0000_u64 as i64);
                let upper = b.bin(BinOp::And, pairs, mask);
                b.cast(Cast::Bitcast, upper, Ty::vector(Elem::F32, LANES))
            }
            (WeightFormat::Bf16, _) => {
                let pairs = b.load(Ty::vector(Elem::I32, LANES), ptr, 0);
                bf16_pair(b, pairs)[0]
            }
            _ => self.emit_decode(b, ptr, 0)[k],
        }
    }

    /// Emits the decoding of the k's of one lane of the step at `ptr`: scalars, in order of k.
    pub fn emit_decode_lane(self, b: &mut Builder, ptr: Val) -> Vec<Val> {
        match self {
            WeightFormat::F32 => vec![b.load(Ty::F32, ptr, 0)],
            WeightFormat::F16 => {
                let h = b.load(Ty::I16, ptr, 0);
                vec![b.cast(Cast::F16ToF32, h, Ty::F32)]
            }
            WeightFormat::Bf16 => {
                let pair = b.load(Ty::I32, ptr, 0);
                bf16_pair(b, pair).to_vec()
            }
            WeightFormat::Quant(scheme) => unreachable!("{scheme} is no float format"),
        }
    }
}

/// The two bf16 in each i32 lane as f32, lower half first.
fn bf16_pair(b: &mut Builder, pairs: Val) -> [Val; 2] {
    let ty = b.ty(pairs);
    let (sixteen, mask) = (b.int(ty, 16), b.int(ty, -65536));
    let lo = b.bin(BinOp::Shl, pairs, sixteen);
    let hi = b.bin(BinOp::And, pairs, mask);
    [lo, hi].map(|v| b.cast(Cast::Bitcast, v, ty.with_elem(Elem::F32)))
}
