//! Random values of a type, for runs of the interpreter.

use llmc_ir::interp::{KvCache, RtValue};
use llmc_ir::{DType, Dim, KvType, Tensor, Type};

/// Tokens of a random step; the first stands at [`FIRST_POSITION`].
pub const TOKENS: usize = 3;
const FIRST_POSITION: usize = 2;

/// A small generator, so that tests need no crate for it.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn float(&mut self, dtype: DType) -> f32 {
        let v = self.next() as f32 / (1u64 << 30) as f32 - 1.0;
        match dtype {
            DType::Bf16 | DType::F16 | DType::I8 | DType::E4m3 | DType::Quant(_) => {
                f32::from_bits(v.to_bits() & 0xffff_0000)
            }
            DType::F32 | DType::I32 => v,
        }
    }

    /// A value of a type. Integers count tokens: they serve as positions, `name` has `seq` or `row`
    /// in it where they are something else.
    pub fn value(&mut self, ty: &Type, name: &str) -> RtValue {
        match ty {
            Type::Kv(kv) => RtValue::Kv(self.cache(*kv)),
            Type::Tensor(t) => {
                let shape: Vec<usize> = t.shape.iter().map(|d| d.constant().unwrap_or(TOKENS)).collect();
                let elements: usize = shape.iter().product();
                match t.dtype {
                    DType::I32 => RtValue::Tensor(Tensor::i32s((0..elements).map(|i| index(i, name)).collect())),
                    dtype => {
                        let data = (0..elements).map(|_| self.float(dtype)).collect();
                        RtValue::Tensor(Tensor::f32(&shape, data))
                    }
                }
            }
        }
    }

    /// A cache that holds every position a random step may look at.
    fn cache(&mut self, ty: KvType) -> KvCache {
        let mut kv = KvCache::new(ty);
        for position in 0..FIRST_POSITION + TOKENS {
            let width = ty.heads * ty.head_dim;
            let mut row = || (0..width).map(|_| self.float(DType::Bf16)).collect::<Vec<f32>>();
            kv.rows.insert((0, position as i32), (row(), row()));
        }
        kv
    }
}

fn index(i: usize, name: &str) -> i32 {
    if name.contains("seq") {
        return 0;
    }
    if name.contains("row") { i as i32 } else { (i + FIRST_POSITION) as i32 }
}

/// True for a symbolic dimension.
pub fn is_symbolic(d: &Dim) -> bool {
    d.constant().is_none()
}
