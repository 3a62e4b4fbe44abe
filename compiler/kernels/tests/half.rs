//! The integer expansions of the binary16 conversions against the `half` crate: all halfs, and
//! floats around every rounding boundary.

mod common;

use common::{BARE, legal, program, run};
use half::f16;
use llmc_kernels::kir::Program;
use llmc_kernels::kir::interp::Order;

/// Converts the first buffer into the second, `count` elements by vectors of 16.
fn converter(count: usize, cast: &str, (from, to): (&str, &str), (from_bytes, to_bytes): (usize, usize)) -> Program {
    let source = format!(
        "func @main(%0: ptr, %1: i64, %2: i64) {{
           %3 = load ptr %0, align 8
           %4 = load ptr %0 + 8, align 8
           %5 = int i64 0
           %6 = int i64 {count}
           %7 = int i64 16
           for %8 = %5 to %6 step %7 {{
             %9 = int i64 {from_bytes}
             %10 = mul i64 %8, %9
             %11 = ptr_add ptr %3, %10
             %12 = load {from}x16 %11, align {from_bytes}
             %13 = {cast} {to}x16 %12
             %14 = int i64 {to_bytes}
             %15 = mul i64 %8, %14
             %16 = ptr_add ptr %4, %15
             store %13, %16, align {to_bytes}
           }}
         }}"
    );
    legal(&program(&source), &BARE)
}

fn convert(program: &Program, input: Vec<u8>, output_bytes: usize) -> Vec<u8> {
    assert!(!program.to_string().contains("f16"), "the conversion is expanded");
    let buffers = [input, vec![0; output_bytes]];
    run(program, &buffers, 1, Order::Forward).expect("the program runs").swap_remove(1)
}

#[test]
fn every_half_becomes_the_same_float() {
    let input: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let program = converter(1 << 16, "f16_to_f32", ("i16", "f32"), (2, 4));
    let output = convert(&program, input, 4 << 16);
    for (bits, found) in (0..=u16::MAX).zip(output.chunks(4)) {
        let found = u32::from_le_bytes(found.try_into().expect("4 bytes"));
        assert_eq!(found, f16::from_bits(bits).to_f32().to_bits(), "half {bits:#06x}");
    }
}

/// Every half, the middle between it and the next, and floats next to these; and the same amount
/// of arbitrary bits.
fn floats() -> Vec<u32> {
    let mut floats = Vec::new();
    for bits in 0..=u16::MAX {
        let exact = f16::from_bits(bits).to_f32().to_bits();
        let middle = exact.wrapping_add(1 << 12);
        for base in [exact, middle] {
            floats.extend([base.wrapping_sub(1), base, base.wrapping_add(1)]);
        }
    }
    for k in 0..1u32 << 12 {
        floats.extend([k, k << 19, k << 11, 0x3300_0000 + (k << 8), 0x7f80_0000 + k, 0xff80_0000 + (k << 11)]);
    }
    let mut state = 1u32;
    floats.extend((0..1 << 19).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state ^ (state >> 15)
    }));
    floats.resize(floats.len().next_multiple_of(16), 0);
    floats
}

#[test]
fn floats_become_the_same_halfs() {
    let floats = floats();
    let input: Vec<u8> = floats.iter().flat_map(|f| f.to_le_bytes()).collect();
    let program = converter(floats.len(), "f32_to_f16", ("f32", "i16"), (4, 2));
    let output = convert(&program, input, 2 * floats.len());
    for (bits, found) in floats.iter().zip(output.chunks(2)) {
        let found = u16::from_le_bytes(found.try_into().expect("2 bytes"));
        assert_eq!(found, f16::from_f32(f32::from_bits(*bits)).to_bits(), "float {bits:#010x}");
    }
}
