//! What of KIR has a Cranelift instruction.

use llmc_kernels::Target;
use llmc_kernels::kir::legalize::Limits;
use llmc_kernels::kir::{BinOp, Cast, Elem, Op, Ty};

/// What programs are reduced to before lowering. Without FMA, Cranelift would call libm.
pub fn of(target: &Target) -> Limits {
    Limits {
        vector_bits: 128,
        native_f16: false,
        native_dot2_bf16: false,
        native_dot4_i8: true,
        native_dot2_i8: target.has_byte_pairs(),
        native_tiles: false,
        native_lookup16: false,
        fma: target.has_fma(),
        scalarize,
    }
}

/// Vector instructions that x86-64 or Cranelift lacks.
fn scalarize(op: &Op, operand: Ty, result: Ty) -> bool {
    match op {
        Op::Dot4I8 { .. } | Op::Dot2I8 { .. } | Op::AddHalves { .. } => false,
        Op::Bin(BinOp::Mul, ..) => operand.elem == Elem::I8,
        Op::Bin(BinOp::Div | BinOp::Rem, ..) => operand.elem.is_int(),
        Op::Cast(Cast::FloatToInt, _) => (operand.elem, result.elem) != (Elem::F32, Elem::I32),
        Op::Cast(Cast::IntToFloat, _) => (operand.elem, result.elem) == (Elem::I64, Elem::F32),
        _ => false,
    }
}
