//! Names of operations in the text form.

use super::inst::{BinOp, CacheLevel, Cast, Cond, Mma, TileKind, UnOp};

/// The element of `table` with this name.
pub(super) fn named<T: Copy>(table: &[(T, &str)], name: &str) -> Option<T> {
    table.iter().find(|(_, n)| *n == name).map(|(op, _)| *op)
}

/// The name of an element of `table`, which has them all.
pub(super) fn name_of<T: PartialEq>(table: &[(T, &'static str)], op: T) -> &'static str {
    table.iter().find(|(o, _)| *o == op).expect("every operation has a name").1
}

pub(super) const UN: [(UnOp, &str); 6] = [
    (UnOp::Neg, "neg"),
    (UnOp::Abs, "abs"),
    (UnOp::Sqrt, "sqrt"),
    (UnOp::Round, "round"),
    (UnOp::Floor, "floor"),
    (UnOp::Not, "not"),
];

pub(super) const BIN: [(BinOp, &str); 13] = [
    (BinOp::Add, "add"),
    (BinOp::Sub, "sub"),
    (BinOp::Mul, "mul"),
    (BinOp::Div, "div"),
    (BinOp::Rem, "rem"),
    (BinOp::Min, "min"),
    (BinOp::Max, "max"),
    (BinOp::And, "and"),
    (BinOp::Or, "or"),
    (BinOp::Xor, "xor"),
    (BinOp::Shl, "shl"),
    (BinOp::LShr, "lshr"),
    (BinOp::AShr, "ashr"),
];

pub(super) const COND: [(Cond, &str); 6] = [
    (Cond::Eq, "cmp.eq"),
    (Cond::Ne, "cmp.ne"),
    (Cond::Lt, "cmp.lt"),
    (Cond::Le, "cmp.le"),
    (Cond::Gt, "cmp.gt"),
    (Cond::Ge, "cmp.ge"),
];

pub(super) const CAST: [(Cast, &str); 10] = [
    (Cast::SExt, "sext"),
    (Cast::ZExt, "zext"),
    (Cast::Trunc, "trunc"),
    (Cast::IntToFloat, "int_to_float"),
    (Cast::FloatToInt, "float_to_int"),
    (Cast::FExt, "fext"),
    (Cast::FTrunc, "ftrunc"),
    (Cast::Bitcast, "bitcast"),
    (Cast::F16ToF32, "f16_to_f32"),
    (Cast::F32ToF16, "f32_to_f16"),
];

pub(super) const TILES: [(TileKind, &str); 2] = [(TileKind::I8, "tiles.i8"), (TileKind::Bf16, "tiles.bf16")];

pub(super) const PREFETCH: [(CacheLevel, &str); 2] = [(CacheLevel::L1, "prefetch.l1"), (CacheLevel::L2, "prefetch.l2")];

pub(super) const MMA: [(Mma, &str); 4] =
    [(Mma::Bf16, "mma.bf16"), (Mma::F16, "mma.f16"), (Mma::U8S8, "mma.u8s8"), (Mma::S8S8, "mma.s8s8")];
