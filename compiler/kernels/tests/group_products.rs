//! Products of quantized weights in groups of threads against those of a CPU, whose sums they share bit for bit
//! where one warp has all of k.

mod common;

use common::product::{Case, TILES, bits, error};
use llmc_ir::Scheme;
use llmc_kernels::WeightFormat;
use llmc_kernels::env::{RowElem, Scratch};
use llmc_kernels::kir::interp::Order;
use llmc_kernels::kir::{Function, Op, Region};
use llmc_kernels::ops::gpu::{SHARED_BYTES, gemm};
use llmc_kernels::ops::linear::LinearKernel;

const SCHEMES: [Scheme; 12] = [
    Scheme::W8A8,
    Scheme::W8 { group: 32 },
    Scheme::W8 { group: 64 },
    Scheme::W6,
    Scheme::W5,
    Scheme::W4,
    Scheme::W3,
    Scheme::W2,
    Scheme::Int4 { group: 32 },
    Scheme::Int4 { group: 128 },
    Scheme::Int4Asym { group: 64 },
    Scheme::Int4Asym { group: 128 },
];
/// Shared memory for a row of x and three rounds of weights.
const LITTLE_ROOM: usize = 17 * 1024;

fn of(scheme: Scheme, k: usize) -> Case {
    Case { format: WeightFormat::Quant(scheme), k }
}

/// The product with little room for weights on their way, which are asked for ahead: that, and the product.
fn in_little_room(case: &Case, threads: usize, engine: bool) -> [Function; 2] {
    let scratch = Scratch { shared: LITTLE_ROOM, engine, ..case.scratch(threads) };
    let kernel = LinearKernel { ahead: true, ..case.product(RowElem::F32) };
    let ahead = kernel.build_ahead("ahead", scratch).expect("weights are asked for ahead");
    [ahead, kernel.build("product", scratch)]
}

#[test]
fn one_warp_has_the_bits_of_a_cpu() {
    for scheme in SCHEMES {
        // Few elements, a short last group and block, several rounds of loads.
        for k in [30, 200, 1184] {
            let case = of(scheme, k);
            let expected = case.of_floats(1, 2);
            assert!(expected.iter().any(|v| *v != 0.0));
            assert!(bits(&case.of_floats(32, 2)) == bits(&expected), "{scheme}, k = {k}");
            assert!(
                bits(&case.of_converted(RowElem::Bytes, 32, 3)) == bits(&expected),
                "{scheme}, k = {k}, rows converted before"
            );
        }
    }
}

/// Where rounds are whole, numbers of tables and scales of groups come with the codes.
#[test]
fn what_stands_beside_codes_comes_with_them() {
    for (scheme, beside) in [(Scheme::W4, 80), (Scheme::Int4 { group: 32 }, 8 * 32)] {
        let case = of(scheme, 1024);
        let expected = case.of_floats(1, 2);
        for engine in [false, true] {
            let kernels = in_little_room(&case, 32, engine);
            assert!(bits(&case.run(&kernels, 32, 2)) == bits(&expected), "{scheme}, by the copy engine: {engine}");
            let text = kernels[0].to_string();
            let copied = text.lines().any(|l| l.contains("bulk_copy") && l.contains(&format!(", {beside}, ")));
            assert_eq!(copied, engine, "{scheme}: {text}");
        }
    }
}

#[test]
fn several_warps_have_nearly_the_same() {
    for scheme in SCHEMES {
        for (k, threads) in [(200, 128), (1184, 64), (513, 512)] {
            let case = of(scheme, k);
            let expected = case.of_floats(1, 1);
            let found = case.of_floats(threads, 2);
            let error = error(&expected, &found);
            assert!(error < 1e-6, "{scheme}, k = {k}, {threads} threads: {error}");
            assert!(
                bits(&case.of_converted(RowElem::Bytes, threads, 1)) == bits(&found),
                "{scheme}, k = {k}: rows converted before"
            );
        }
    }
}

#[test]
fn tiles_have_the_bits_of_a_cpu() {
    for scheme in SCHEMES {
        for (k, workers, order) in
            [(128usize, 1, Order::Forward), (1152, 2, Order::Seeded(3)), (192, 3, Order::Reverse)]
        {
            if !k.is_multiple_of(scheme.group().unwrap_or(1)) {
                continue;
            }
            let case = of(scheme, k);
            let expected = case.of_floats(1, 2);
            let found = case.try_run(&case.tiled(RowElem::Bytes), TILES, workers, order);
            let found = found.unwrap_or_else(|e| panic!("{scheme}, k = {k}: {e}"));
            assert!(bits(&found) == bits(&expected), "{scheme}, k = {k}");
        }
    }
    let case = of(Scheme::W8A8, 200);
    assert!(!gemm::fits(&case.product(RowElem::Bytes), case.scratch(TILES)), "200 elements are no whole steps");
}

#[test]
fn four_warps_have_the_bits_of_a_cpu() {
    for scheme in SCHEMES {
        for (k, workers, order) in [(128, 1, Order::Forward), (1152, 2, Order::Seeded(3)), (256, 3, Order::Reverse)] {
            let case = of(scheme, k);
            let expected = case.of_floats(1, 2);
            let wide = case.wide(RowElem::Bytes);
            assert!(wide[1].to_string().contains("wgmma.s8s8"), "{}", wide[1]);
            let found = case.try_run(&wide, TILES, workers, order);
            let found = found.unwrap_or_else(|e| panic!("{scheme}, k = {k}: {e}"));
            assert!(bits(&found) == bits(&expected), "{scheme}, k = {k}");
        }
    }
}

/// Where rows in three parts and weights on their way do not fit, there is a form for which they do.
#[test]
fn long_rows_of_f32_fit_shared_memory() {
    for shared in [SHARED_BYTES, 226 * 1024] {
        let case = Case { format: WeightFormat::Bf16, k: 14336 };
        let scratch = Scratch { shared, engine: shared > SHARED_BYTES, ..case.scratch(256) };
        let kernel = LinearKernel { ahead: true, ..case.product(RowElem::F32) };
        let kernels = [Some(kernel.build("product", scratch)), kernel.build_ahead("ahead", scratch)];
        for kernel in kernels.iter().flatten() {
            let found = kernel.shared_bytes();
            assert!(found <= shared, "{} takes {found} bytes of {shared}", kernel.name);
        }
        assert_eq!(kernels[1].is_some(), shared > SHARED_BYTES, "weights are asked for ahead where they fit");
    }
}

/// That form computes the same.
#[test]
fn rows_of_f32_in_little_room_have_nearly_the_same() {
    let case = Case { format: WeightFormat::Bf16, k: 512 };
    let run = |shared| {
        let kernel = case.product(RowElem::F32).build("product", Scratch { shared, ..case.scratch(64) });
        case.run(&[kernel], 64, 2)
    };
    let (expected, found) = (run(SHARED_BYTES), run(8 * 1024));
    let error = error(&expected, &found);
    assert!(error < 1e-6 && expected != found, "off by {error}");
}

/// Drops the wait or barrier numbered `number` of those in a region and inside it; gives how many came before the
/// end, and the name of the one dropped.
fn drop_site(region: &mut Region, number: usize, passed: &mut usize) -> Option<&'static str> {
    let mut dropped = None;
    region.body.retain_mut(|inst| {
        let name = match &mut inst.op {
            Op::For { body, .. } => {
                dropped = dropped.or(drop_site(body, number, passed));
                return true;
            }
            Op::If { then, els, .. } => {
                for side in [then, els] {
                    dropped = dropped.or(drop_site(side, number, passed));
                }
                return true;
            }
            Op::AsyncWait { .. } => "async_wait",
            Op::SignalWait { .. } => "signal_wait",
            Op::WarpBarrier => "warp_barrier",
            Op::GroupBarrier => "group_barrier",
            _ => return true,
        };
        *passed += 1;
        if *passed != number + 1 {
            return true;
        }
        dropped = Some(name);
        false
    });
    dropped
}

/// Weights are multiplied when they are there, and nothing is copied where something is still read.
#[test]
fn rounds_in_little_room_need_their_waits() {
    let case = of(Scheme::W8A8, 2048);
    for engine in [false, true] {
        let kernels = in_little_room(&case, 64, engine);
        let run = |kernels: &[Function], order| case.try_run(kernels, 64, 2, order).map(|v| bits(&v));
        let expected = run(&kernels, Order::Forward).unwrap_or_else(|e| panic!("{e}"));
        assert!(expected == bits(&case.of_floats(64, 2)), "other bits with little room");
        let mut spare = Vec::new();
        for which in 0..2 {
            for number in 0.. {
                let mut kernels = kernels.clone();
                let Some(name) = drop_site(&mut kernels[which].body, number, &mut 0) else { break };
                let orders = [Order::Forward, Order::Reverse, Order::Seeded(1)];
                if orders.into_iter().all(|order| run(&kernels, order).as_ref() == Ok(&expected)) {
                    spare.push(format!("{} {name} {number}", kernels[which].name));
                }
            }
        }
        assert_eq!(spare, SPARE, "by the copy engine: {engine}");
    }
}

/// Sites without which nothing changes: a barrier of what runs before or after makes up for the first and last
/// ones; sums over the group begin with one; no other thread of the warp reads the rows that end with one.
const SPARE: [&str; 7] = [
    "ahead group_barrier 0",
    "product group_barrier 0",
    "product group_barrier 1",
    "product group_barrier 5",
    "product warp_barrier 11",
    "product warp_barrier 12",
    "product group_barrier 13",
];
