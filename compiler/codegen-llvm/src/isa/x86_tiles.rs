//! Products in AMX tiles (Intel SDM, volume 1, chapter 18; instructions in volume 2).
//!
//! Tiles 0 to 3 hold the sums of up to two pieces of 16 rows and two panels, 4 and 5 the pieces of rows, 6 and 7
//! those of panels. Their shapes depend on the number of rows alone and are loaded where it changes.

use super::TileState;
use crate::error::Failure;
use crate::lower::Lower;
use inkwell::IntPredicate;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};
use llmc_kernels::kir::{TileKind, Tiles};

/// Rows of a tile, and bytes of a row.
const ROWS: u64 = 16;
const ROW_BYTES: u64 = 64;
/// First tiles of rows of x and of panels.
const X: u64 = 4;
const PANELS: u64 = 6;
/// Bytes of a configuration.
const CONFIG_BYTES: u32 = 64;
/// Where in a configuration the bytes of rows (16 bits each) and the numbers of rows (8 bits each) stand.
const CONFIG_ROW_BYTES: u64 = 16;
const CONFIG_ROWS: u64 = 48;
/// Tiles whose rows are the second piece of rows.
const SECOND: [u64; 3] = [2, 3, X + 1];
/// Tiles whose rows are the first piece of rows.
const FIRST: [u64; 3] = [0, 1, X];

/// Memory of a function that multiplies in tiles: a configuration, and the number of rows it was loaded for.
pub(super) fn begin<'c>(low: &Lower<'c, '_>) -> Result<TileState<'c>, Failure> {
    let config = low.stack(CONFIG_BYTES)?.into_pointer_value();
    let rows = low.stack(8)?.into_pointer_value();
    let mut bytes = [0u8; CONFIG_BYTES as usize];
    bytes[0] = 1;
    for tile in 0..8 {
        bytes[CONFIG_ROW_BYTES as usize + 2 * tile] = ROW_BYTES as u8;
        bytes[CONFIG_ROWS as usize + tile] = ROWS as u8;
    }
    let words = low.context.i64_type();
    for (i, word) in bytes.chunks_exact(8).enumerate() {
        let word = words.const_int(u64::from_le_bytes(word.try_into().expect("eight bytes")), false);
        low.builder.build_store(low.address(config.into(), 8 * i as i32)?, word)?;
    }
    low.builder.build_store(rows, words.const_zero())?;
    Ok(TileState { config, rows })
}

/// Gives the tiles back, so that no one has to save them.
pub(super) fn end(low: &Lower<'_, '_>) -> Result<(), Failure> {
    call(low, "llvm.x86.tilerelease", &[])
}

/// A product; operands are x, panels, sums and the number of rows.
pub(super) fn product<'c>(
    low: &Lower<'c, '_>,
    state: TileState<'c>,
    t: &Tiles,
    [x, panels, sums, rows]: [BasicValueEnum<'c>; 4],
) -> Result<(), Failure> {
    configure(low, state, rows.into_int_value())?;
    let pieces = u64::from(t.most_rows) / ROWS;
    let columns = u64::from(t.panels);
    let sums_at = |piece: u64, panel: u64| {
        let offset = piece * ROWS * u64::from(t.sum_stride) + panel * ROW_BYTES;
        Ok::<_, Failure>((2 * piece + panel, at(low, sums, offset)?, u64::from(t.sum_stride)))
    };
    for (piece, panel) in pairs(pieces, columns) {
        load(low, sums_at(piece, panel)?)?;
    }
    for block in 0..u64::from(t.blocks) {
        for panel in 0..columns {
            let from = at(low, panels, panel * u64::from(t.panel_stride) + block * ROWS * ROW_BYTES)?;
            load(low, (PANELS + panel, from, ROW_BYTES))?;
        }
        for piece in 0..pieces {
            let from = at(low, x, piece * ROWS * u64::from(t.x_stride) + block * ROW_BYTES)?;
            load(low, (X + piece, from, t.x_stride.into()))?;
            for panel in 0..columns {
                multiply(low, t.kind, [2 * piece + panel, X + piece, PANELS + panel])?;
            }
        }
    }
    for (piece, panel) in pairs(pieces, columns) {
        let (tile, to, stride) = sums_at(piece, panel)?;
        call(low, "llvm.x86.tilestored64", &[number(low, tile), to.into(), bytes(low, stride)])?;
    }
    Ok(())
}

fn pairs(pieces: u64, panels: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..pieces).flat_map(move |piece| (0..panels).map(move |panel| (piece, panel)))
}

/// Loads the configuration for so many rows, unless it is there.
fn configure<'c>(low: &Lower<'c, '_>, state: TileState<'c>, rows: IntValue<'c>) -> Result<(), Failure> {
    let words = low.context.i64_type();
    let now = low.builder.build_load(words, state.rows, "")?.into_int_value();
    let other = low.builder.build_int_compare(IntPredicate::NE, now, rows, "")?;
    low.only_if(other, |low| {
        low.builder.build_store(state.rows, rows)?;
        let full = words.const_int(ROWS, false);
        let more = low.builder.build_int_compare(IntPredicate::SGT, rows, full, "")?;
        let rest = low.builder.build_int_sub(rows, full, "")?;
        let first = low.builder.build_select(more, full, rows, "")?.into_int_value();
        let second = low.builder.build_select(more, rest, full, "")?.into_int_value();
        for (tiles, rows) in [(FIRST, first), (SECOND, second)] {
            let rows = low.builder.build_int_truncate(rows, low.context.i8_type(), "")?;
            for tile in tiles {
                low.builder.build_store(at(low, state.config.into(), CONFIG_ROWS + tile)?, rows)?;
            }
        }
        call(low, "llvm.x86.ldtilecfg", &[state.config.into()])
    })
}

fn load<'c>(low: &Lower<'c, '_>, (tile, from, stride): (u64, PointerValue<'c>, u64)) -> Result<(), Failure> {
    call(low, "llvm.x86.tileloadd64", &[number(low, tile), from.into(), bytes(low, stride)])
}

fn multiply(low: &Lower<'_, '_>, kind: TileKind, tiles: [u64; 3]) -> Result<(), Failure> {
    let name = match kind {
        TileKind::I8 => "llvm.x86.tdpbsud",
        TileKind::Bf16 => "llvm.x86.tdpbf16ps",
    };
    call(low, name, &tiles.map(|tile| number(low, tile)))
}

fn at<'c>(low: &Lower<'c, '_>, base: BasicValueEnum<'c>, offset: u64) -> Result<PointerValue<'c>, Failure> {
    low.address(base, i32::try_from(offset).map_err(|_| Failure::from(format!("{offset} bytes in a tile")))?)
}

fn number<'c>(low: &Lower<'c, '_>, tile: u64) -> BasicValueEnum<'c> {
    low.context.i8_type().const_int(tile, false).into()
}

fn bytes<'c>(low: &Lower<'c, '_>, bytes: u64) -> BasicValueEnum<'c> {
    low.context.i64_type().const_int(bytes, false).into()
}

fn call<'c>(low: &Lower<'c, '_>, name: &str, args: &[BasicValueEnum<'c>]) -> Result<(), Failure> {
    let callee = low.declaration(name, &[])?;
    low.call_value(callee, args)?;
    Ok(())
}
