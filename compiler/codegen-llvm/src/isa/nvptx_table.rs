//! Table lookup on NVIDIA GPUs by byte permutes (PTX ISA, prmt).

use crate::error::Failure;
use crate::lower::Lower;
use inkwell::values::{BasicValueEnum, IntValue};
use llmc_kernels::kir::{Elem, Ty};

/// Bytes of a table, and lanes of a part.
const LANES: u16 = 16;

/// The `Table16` instruction, four bytes at a time.
pub fn table16<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    low.in_parts(operands, LANES, |low, parts| {
        let words = low.ty(Ty::vector(Elem::I32, LANES / 4));
        let [table, index] = [parts[0], parts[1]].map(|v| low.builder.build_bit_cast(v, words, ""));
        let (table, index) = (table?, index?);
        let mut found = index;
        for word in 0..LANES / 4 {
            let v = look_up(low, table, low.extract(index, word)?.into_int_value())?;
            found = low.insert(found, word, v)?;
        }
        Ok(low.builder.build_bit_cast(found, low.ty(Ty::vector(Elem::I8, LANES)), "")?)
    })
}

/// The table's bytes at the four of `index`: both halves are looked up by three bits each, and the fourth
/// chooses.
fn look_up<'c>(
    low: &Lower<'c, '_>,
    table: BasicValueEnum<'c>,
    index: IntValue<'c>,
) -> Result<BasicValueEnum<'c>, Failure> {
    let b = &low.builder;
    let k = |v: i64| low.constant(Ty::I32, v).into_int_value();
    let three = b.build_and(index, k(0x0707_0707), "")?;
    let next = b.build_right_shift(three, k(4), false, "")?;
    let nibbles = b.build_or(three, next, "")?;
    let picks = permute(low, nibbles, k(0), k(0x4420))?;
    let word = |i: u16| Ok::<_, Failure>(low.extract(table, i)?.into_int_value());
    let lower = permute(low, word(0)?, word(1)?, picks)?;
    let upper = permute(low, word(2)?, word(3)?, picks)?;
    // A selector with its fourth bit set repeats the byte's sign.
    let sign = b.build_left_shift(index, k(4), "")?;
    let mask = permute(low, sign, k(0), k(0xba98))?;
    let differ = b.build_xor(lower, upper, "")?;
    let change = b.build_and(differ, mask, "")?;
    Ok(b.build_xor(lower, change, "")?.into())
}

fn permute<'c>(
    low: &Lower<'c, '_>,
    a: IntValue<'c>,
    b: IntValue<'c>,
    picks: IntValue<'c>,
) -> Result<IntValue<'c>, Failure> {
    Ok(low.intrinsic("llvm.nvvm.prmt", &[], &[a.into(), b.into(), picks.into()])?.into_int_value())
}
