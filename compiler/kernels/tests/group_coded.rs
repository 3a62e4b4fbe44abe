//! Products of weights that groups of threads multiply as words of bf16, against those of a CPU, which multiplies in
//! f32: both have the same products, and round their sums in another order.

mod common;

use common::product::{Case, TILES, bits, error};
use llmc_ir::Scheme;
use llmc_kernels::WeightFormat;
use llmc_kernels::env::{RowElem, Scratch};
use llmc_kernels::kir::interp::Order;
use llmc_kernels::ops::linear::LinearKernel;

/// Formats, and how far from the CPU their products may be: levels of NF4 are sums of two bf16.
const FORMATS: [(WeightFormat, f32); 6] = [
    (WeightFormat::Bf16, 3e-6),
    (WeightFormat::F16, 3e-6),
    (WeightFormat::Quant(Scheme::Fp8), 3e-6),
    (WeightFormat::Quant(Scheme::Nf4 { group: 32 }), 5e-6),
    (WeightFormat::Quant(Scheme::Nf4 { group: 64 }), 5e-6),
    (WeightFormat::Quant(Scheme::Nf4 { group: 128 }), 5e-6),
];

#[test]
fn warps_have_nearly_the_same() {
    for (format, most) in FORMATS {
        // Few elements, a short last group and block, several rounds of loads, warps with nothing to do.
        for (k, threads) in [(30, 32), (200, 128), (1184, 64), (514, 512), (2048, 64)] {
            let case = Case { format, k };
            let found = error(&case.of_floats(1, 1), &case.of_floats(threads, 2));
            assert!(found < most, "{format}, k = {k}, {threads} threads: {found}");
            let (expected, found) =
                (case.of_converted(RowElem::Bf16InF32, 1, 1), case.of_converted(RowElem::Bf16, threads, 3));
            let found = error(&expected, &found);
            assert!(found < most, "{format}, k = {k}, {threads} threads, rows of bf16: {found}");
        }
    }
}

/// Weights on their way with little room, asked for ahead, by threads and by the copy engine; and in a form that needs
/// no room for them.
#[test]
fn little_room_changes_little() {
    for (format, most) in FORMATS {
        let case = Case { format, k: 2048 };
        let expected = case.of_converted(RowElem::Bf16, 64, 2);
        for engine in [false, true] {
            let scratch = Scratch { shared: 17 * 1024, engine, ..case.scratch(64) };
            let kernel = LinearKernel { ahead: true, ..case.product(RowElem::Bf16) };
            let ahead = kernel.build_ahead("ahead", scratch).expect("weights are asked for ahead");
            let kernels = [case.convert(RowElem::Bf16, 64), ahead, kernel.build("product", scratch)];
            assert!(bits(&case.run(&kernels, 64, 2)) == bits(&expected), "{format}, by the copy engine: {engine}");
        }
        let kernel = case.product(RowElem::F32).build("product", Scratch { shared: 12 * 1024, ..case.scratch(64) });
        let found = error(&case.of_floats(1, 1), &case.run(&[kernel], 64, 2));
        assert!(found < most, "{format}, in f32: {found}");
    }
}

#[test]
fn tiles_have_nearly_the_same() {
    for (format, most) in FORMATS {
        for (k, workers, order) in [(128, 1, Order::Forward), (1152, 2, Order::Seeded(3)), (256, 3, Order::Reverse)] {
            let case = Case { format, k };
            let expected = case.of_converted(RowElem::Bf16InF32, 1, 2);
            let found = case.try_run(&case.tiled(RowElem::Bf16), TILES, workers, order);
            let found = found.unwrap_or_else(|e| panic!("{format}, k = {k}: {e}"));
            let found = error(&expected, &found);
            assert!(found < most, "{format}, k = {k}: {found}");
        }
    }
}

#[test]
fn four_warps_have_nearly_the_same() {
    for (format, most) in &FORMATS[..3] {
        for (k, workers, order) in [(64, 1, Order::Forward), (1152, 2, Order::Seeded(3)), (256, 3, Order::Reverse)] {
            let case = Case { format: *format, k };
            let expected = case.of_converted(RowElem::Bf16InF32, 1, 2);
            let wide = case.wide(RowElem::Bf16);
            assert!(wide[1].to_string().contains("wgmma.bf16"), "{}", wide[1]);
            let found = case.try_run(&wide, TILES, workers, order).unwrap_or_else(|e| panic!("{format}, k = {k}: {e}"));
            let found = error(&expected, &found);
            assert!(found < *most, "{format}, k = {k}: {found}");
        }
    }
}
