//! Workers of several threads: what the interpreter refuses, and that it misses no barrier.

mod common;

use common::{check, program, run_groups};
use llmc_kernels::kir::filetest::{self, FileTest};
use llmc_kernels::kir::interp::{Compiled, InterpError, Machine, Order};
use llmc_kernels::kir::{Op, Program, Region, verify};

const ORDERS: [Order; 4] = [Order::Forward, Order::Reverse, Order::Seeded(1), Order::Seeded(2)];

/// The files whose programs are changed, and how many barriers and waits each has.
const FILES: [(&str, usize); 8] = [
    ("group_lane_xor", 1),
    ("group_reduce", 2),
    ("group_mma_bf16", 1),
    ("group_mma_u8s8", 1),
    ("group_last_of", 2),
    ("group_async_copy", 3),
    ("group_bulk_copy", 3),
    ("group_wgmma_bf16", 3),
];

fn file(name: &str) -> FileTest {
    let path = format!("{}/../../tests/filetests/kernel/{name}.kir", env!("CARGO_MANIFEST_DIR"));
    filetest::parse(&std::fs::read_to_string(path).expect("a readable file")).unwrap_or_else(|e| panic!("{e}"))
}

/// Deletes barrier or wait number `n`, counted through all regions; how many were passed otherwise.
fn delete(region: &mut Region, n: usize) -> Result<(), usize> {
    let mut passed = 0;
    for i in 0..region.body.len() {
        let found = match &mut region.body[i].op {
            Op::GroupBarrier
            | Op::WarpBarrier
            | Op::Barrier { .. }
            | Op::AsyncWait { .. }
            | Op::SignalWait { .. }
            | Op::SharedFence => {
                if passed == n {
                    region.body.remove(i);
                    return Ok(());
                }
                Err(1)
            }
            Op::For { body, .. } => delete(body, n - passed),
            Op::If { then, els, .. } => {
                delete(then, n - passed).or_else(|k| delete(els, n - passed - k).map_err(|l| k + l))
            }
            _ => Err(0),
        };
        match found {
            Ok(()) => return Ok(()),
            Err(k) => passed += k,
        }
    }
    Err(passed)
}

/// Why a run fails in this order, if one does.
fn failure(test: &FileTest, program: &Program, order: Order) -> Option<String> {
    test.runs.iter().find_map(|case| check(program, case, order).err())
}

#[test]
fn every_barrier_and_wait_is_needed_in_every_order() {
    for (name, count) in FILES {
        let test = file(name);
        for order in ORDERS {
            assert_eq!(failure(&test, &test.program, order), None, "{name}, {order:?}");
        }
        for n in 0..count {
            let mut program = test.program.clone();
            let function = program.functions.last_mut().expect("a function");
            assert_eq!(delete(&mut function.body, n), Ok(()), "{name} has {count} barriers and waits");
            verify::verify(&program).unwrap_or_else(|e| panic!("{e}"));
            for order in ORDERS {
                assert!(failure(&test, &program, order).is_some(), "{name}, {order:?}: behaves without number {n}");
            }
        }
        let mut program = test.program.clone();
        assert_eq!(delete(&mut program.functions[0].body, count), Err(count), "{name}");
    }
}

/// Words of two bf16 as words of two binary16; the numbers are few bits wide.
fn as_halves(words: &[u8]) -> Vec<u8> {
    let number = |b: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
    words.chunks(2).flat_map(|b| half::f16::from_f32(number(b)).to_le_bytes()).collect()
}

/// The product of the same numbers as binary16.
#[test]
fn halves_are_multiplied_as_bf16_is() {
    let mut test = file("group_mma_bf16");
    let text = test.program.to_string().replace("mma.bf16", "mma.f16");
    let case = &mut test.runs[0];
    for buffer in &mut case.buffers[..2] {
        buffer.input = as_halves(&buffer.input);
    }
    let inputs: Vec<Vec<u8>> = case.buffers.iter().map(|b| b.input.clone()).collect();
    let outputs = run_groups(&program(&text), &inputs, (1, 32), Order::Forward).expect("the program runs");
    assert_eq!(case.buffers[2].check(&outputs[2]), Ok(()));
}

#[test]
fn runs_name_their_threads() {
    let counts = |run: &str| {
        let source = format!("func @main(%0: ptr, %1: i64, %2: i64) {{}}\n;; run {run}");
        filetest::parse(&source).map(|test| (test.runs[0].workers, test.runs[0].threads, test.has_groups()))
    };
    assert_eq!(counts("3"), Ok((3, 1, false)));
    assert_eq!(counts("3 threads 64"), Ok((3, 64, true)));
    for wrong in ["", "3 threads", "3 64", "threads 64", "3 threads many"] {
        assert!(counts(wrong).is_err(), "{wrong}");
    }
}

/// A function that has loaded two pointers, %3 and %4, its thread %5, an address for each thread in the
/// buffer of each, %6 and %7, its lane %8, and truth values: thread 0 %9 and worker 0 %10.
const PRELUDE: &str = "
    %3 = load ptr %0, align 8
    %4 = load ptr %0 + 8, align 8
    %5 = thread i64
    %11 = int i64 4
    %12 = mul i64 %5, %11
    %6 = ptr_add ptr %3, %12
    %7 = ptr_add ptr %4, %12
    %13 = int i64 32
    %8 = rem i64 %5, %13
    %14 = int i64 0
    %9 = cmp.eq i1 %5, %14
    %10 = cmp.eq i1 %1, %14
    %15 = int i32 1
    %16 = shared ptr 256
    %17 = ptr_add ptr %16, %12
    ";

fn outcome(body: &str, counts: (usize, usize), order: Order) -> Result<Vec<Vec<u8>>, String> {
    let source = format!("func @main(%0: ptr, %1: i64, %2: i64) {{ {PRELUDE} {body} }}");
    run_groups(&program(&source), &[vec![0; 1024], vec![0; 1024]], counts, order).map_err(|e| e.to_string())
}

/// What fails in every order, with a part of the message.
fn refused(body: &str, counts: (usize, usize), expected: &str) {
    for order in ORDERS {
        let error = outcome(body, counts, order).expect_err(body);
        assert!(error.contains(expected), "{order:?}: {body}\nexpected: {expected}\nfound: {error}");
    }
}

fn accepted(body: &str, counts: (usize, usize)) {
    for order in ORDERS {
        outcome(body, counts, order).unwrap_or_else(|e| panic!("{order:?}: {body}\n{e}"));
    }
}

/// Thread 0 of worker 0 writes, and all read after what stands between.
fn handed_on(between: &str) -> String {
    format!("%18 = and i1 %9, %10\n if %18 {{ store %15, %3, align 4 }}\n {between}\n %19 = load i32 %3, align 4")
}

#[test]
fn barriers_order_their_own_threads() {
    accepted(&handed_on("barrier 0"), (3, 64));
    accepted(&handed_on("group_barrier"), (1, 64));
    accepted(&handed_on("warp_barrier"), (1, 32));
    refused(&handed_on(""), (1, 32), "data race: byte");
    refused(&handed_on("warp_barrier"), (1, 64), "data race: byte");
    refused(&handed_on("group_barrier"), (2, 64), "data race: byte");
    refused(&handed_on("%20 = lane_xor i32 %15[1]"), (1, 32), "data race: byte");
    refused(&handed_on("group_barrier"), (2, 1), "data race: byte");
}

#[test]
fn several_readers_are_remembered() {
    let body = |between: &str, threads: &str| {
        format!("%18 = load i32 %3, align 4\n {between}\n if {threads} {{ store %15, %3, align 4 }}")
    };
    accepted(&body("barrier 0\n %19 = and i1 %9, %10", "%19"), (3, 64));
    accepted(&body("group_barrier", "%9"), (1, 64));
    accepted(&body("warp_barrier", "%9"), (1, 32));
    refused(&body("", "%9"), (1, 32), "data race: byte");
    refused(&body("warp_barrier", "%9"), (1, 64), "data race: byte");
    refused(&body("group_barrier\n %19 = and i1 %9, %10", "%19"), (2, 64), "data race: byte");
}

#[test]
fn equal_values_race_too() {
    refused("store %15, %3, align 4", (1, 32), "was written by worker 0, thread");
    refused("store %15, %6, align 4", (2, 32), "was written by worker");
    accepted("store %15, %6, align 4\n group_barrier\n if %9 { store %15, %3 + 4, align 4 }", (1, 64));
}

#[test]
fn who_should_meet_comes_to_one_place() {
    let half = "%18 = int i64 16\n %19 = cmp.lt i1 %8, %18";
    let apart = |then: &str, els: &str| format!("{half}\n if %19 {{ {then} }} else {{ {els} }}");
    refused(&apart("warp_barrier", "group_barrier"), (1, 32), "waits at warp_barrier in step");
    refused(&apart("warp_barrier", "group_barrier"), (1, 32), "waits at group_barrier in step");
    refused(&apart("warp_barrier", "warp_barrier"), (1, 32), "worker 0, thread 16 waits at warp_barrier");
    refused(&apart("%20 = lane_xor i32 %15[1]", ""), (1, 32), "thread 16 has returned");
    refused("if %9 { group_barrier }", (1, 64), "thread 0 waits at group_barrier");
    refused("if %10 { barrier 5 }", (2, 64), "worker 0, thread 0 waits at barrier 5");
    let warps = "%18 = cmp.lt i1 %5, %13\n if %18 { group_barrier } else { group_barrier }";
    refused(warps, (1, 64), "worker 0, thread 0 waits at group_barrier");
    accepted("if %10 { group_barrier\n warp_barrier }", (2, 64));
}

#[test]
fn shared_memory_belongs_to_a_worker() {
    refused("%18 = load i32 %17, align 4", (1, 64), "never written");
    refused("%18 = load i32 %16 + 256, align 4", (1, 64), "byte 256 of a buffer of 256 bytes");
    refused("%18 = load i32 %16, align 2048", (1, 64), "is not aligned to 2048");
    accepted("if %9 { store %5, %16, align 1024 }\n group_barrier\n %18 = load i64 %16, align 1024", (3, 64));
}

#[test]
fn the_last_worker_sees_what_was_done_before() {
    let rows = "%18 = int i64 128\n %19 = mul i64 %1, %18\n %20 = ptr_add ptr %6, %19\n %21 = int i32 0";
    let sum = "if %22 { %23 = load i32 %6, align 4\n %24 = load i32 %6 + 128, align 4 }";
    let before = format!("{rows}\n store %15, %20, align 4\n %22 = last_of i1 %4, %15, 2\n {sum}");
    accepted(&before, (2, 32));
    let after = format!("{rows}\n %22 = last_of i1 %4, %15, 2\n store %15, %20, align 4\n {sum}");
    refused(&after, (2, 32), "data race: byte");
    let other = format!(
        "{rows}\n store %15, %20, align 4\n %25 = int i64 4\n %26 = mul i64 %1, %25\n %27 = ptr_add ptr %4, %26\n %22 = last_of i1 %27, %15, 1\n {sum}"
    );
    refused(&other, (2, 32), "data race");
    refused(
        "%18 = last_of i1 %4, %15, 1\n barrier 0\n %19 = load i32 %4, align 4\n store %15, %4, align 4",
        (2, 32),
        "data race",
    );
    refused("%18 = int i32 3\n %19 = last_of i1 %4, %18, 4", (2, 32), "the counter passes its total");
    refused("%18 = trunc i32 %5\n %19 = last_of i1 %4, %18, 4", (1, 32), "the threads of the worker differ");
    refused("if %9 { store %15, %4, align 4 }\n %18 = last_of i1 %4, %15, 9", (2, 32), "data race");
}

/// Workers 0 and 1 meet at one counter; the last of them and worker 2 meet at another.
#[test]
fn what_a_last_worker_knows_it_hands_on() {
    let body = "%33 = int i64 64
        %32 = ptr_add ptr %4, %33
        %18 = int i64 2
        %19 = cmp.lt i1 %1, %18
        %20 = int i64 128
        %21 = mul i64 %1, %20
        %22 = ptr_add ptr %6, %21
        %23 = int i1 0
        store %15, %22, align 4
        %27 = if %19 -> i1 {
          %24 = last_of i1 %4, %15, 2
          %26 = if %24 -> i1 {
            %25 = last_of i1 %32, %15, 2
            yield %25
          } else { yield %23 }
          yield %26
        } else {
          %28 = last_of i1 %32, %15, 2
          yield %28
        }
        if %27 {
          %29 = load i32 %6, align 4
          %30 = load i32 %6 + 128, align 4
          %31 = load i32 %6 + 256, align 4
        }";
    accepted(body, (3, 32));
}

#[test]
fn copies_arrive_at_the_wait() {
    let copy = "async_copy %17, %6, 4\n";
    let done = format!("{copy} async_commit\n async_wait 0\n %18 = load i32 %17, align 4");
    accepted(&done, (2, 64));
    accepted("async_commit", (1, 32));
    refused(&format!("{copy} async_wait 0\n %18 = load i32 %17, align 4"), (1, 64), "never written");
    refused(&format!("{copy} async_commit\n async_wait 1\n %18 = load i32 %17, align 4"), (1, 64), "never written");
    refused(copy, (1, 64), "copies under way");
    refused(&format!("{copy} async_commit"), (1, 64), "copies under way");
    refused(&format!("{copy} async_commit\n store %15, %6, align 4\n async_wait 0"), (1, 64), "the source of");
    refused(&format!("{copy} async_commit\n store %15, %17, align 4\n async_wait 0"), (1, 64), "the target of");
    refused("async_copy %7, %6, 4", (1, 64), "is not memory of the worker");
    refused("async_copy %17, %6, 8\n async_commit\n async_wait 0", (1, 64), "is not aligned to 8");
    let neighbour = "%19 = int i64 63
 %20 = sub i64 %19, %5
 %21 = mul i64 %20, %11
 %22 = ptr_add ptr %16, %21";
    let other = |between: &str| {
        format!("{copy} async_commit\n async_wait 0\n {between}\n {neighbour}\n %18 = load i32 %22, align 4")
    };
    accepted(&other("group_barrier"), (2, 64));
    for order in ORDERS {
        outcome(&other(""), (2, 64), order).expect_err("no barrier");
    }
}

#[test]
fn signals_tell_of_copies() {
    let begin = "%18 = int i32 0\n %19 = int i64 128\n %20 = ptr_add ptr %16, %19\n if %9 { signal_begin %20, 1 }";
    let copy = "if %9 { bulk_copy %16, %3, 16, %20 }";
    let wait = "signal_wait %20, %18";
    let end = "if %9 { signal_end %20 }";
    let read = "%21 = load i32x4 %16, align 16";
    let all = |parts: &[&str]| parts.join("\n");
    let meet = "group_barrier";
    accepted(&all(&[begin, copy, meet, wait, read, meet, end]), (2, 64));
    accepted(&all(&[begin, end]), (1, 64));
    refused(&all(&[begin, copy, meet, read]), (1, 64), "never written");
    refused(&all(&[begin, meet, wait]), (1, 64), "copies that nobody has begun");
    refused(&all(&[begin, copy, copy]), (1, 64), "its copies already");
    refused(&all(&[begin, copy, end]), (1, 64), "ends with copies under way");
    refused(&all(&[begin, copy]), (1, 64), "a signal that has not ended");
    refused(&all(&[begin, "if %9 { signal_begin %20, 1 }"]), (1, 64), "a signal at the address already");
    refused(&all(&[begin, end, copy]), (1, 64), "no signal at the address");
    refused(&all(&[begin, "if %9 { store %15, %20, align 4 }", end]), (1, 64), "bytes of the signal were written");
    refused("if %9 { signal_begin %4, 1 }", (1, 64), "not in memory of the worker");
    refused(&all(&[begin, copy, meet, "if %9 { store %15, %3, align 4 }", meet, wait]), (1, 64), "the source of");
    // Who waits has to know of the signal, and who ends it that nobody waits any more.
    for unordered in [&[begin, copy, wait, meet, end], &[begin, copy, meet, wait, end]] {
        for order in ORDERS {
            outcome(&all(unordered), (1, 64), order).expect_err("no barrier");
        }
    }
}

/// A warp multiplies with columns that each of its threads has written two lines of.
#[test]
fn products_of_four_warps_wait_for_their_columns() {
    let fill = "%18 = shared ptr 8192
 %19 = int i64 256
 %20 = mul i64 %5, %19
 %21 = ptr_add ptr %18, %20
 %22 = int i64 16
 %23 = int i32x4 0
 %24 = for %25 = %14 to %19 step %22 (%26 = %14: i64) {
   %27 = ptr_add ptr %21, %25
   store %23, %27, align 16
   yield %26
 }";
    let (fence, meet) = ("shared_fence", "group_barrier");
    let begin = "%28 = float f32x32 1.0\n %29 = wgmma.bf16 f32x32 %28, %23, %18";
    let more = "%30 = wgmma.bf16 f32x32 %29, %23, %18";
    let wait = "%31 = wgmma_wait f32x32 %30, [%23]";
    let written = "%32 = extract f32 %31[0]\n store %32, %7, align 4";
    let all = |parts: &[&str]| parts.join("\n");
    accepted(&all(&[fill, fence, meet, begin, more, wait, written]), (1, 32));
    refused(&all(&[fill, meet, begin, more, wait]), (1, 32), "without a fence and a barrier");
    refused(&all(&[fill, meet, fence, begin, more, wait]), (1, 32), "without a fence and a barrier");
    refused(&all(&[fence, fill, meet, begin, more, wait]), (1, 32), "without a fence and a barrier");
    refused(&all(&[fill, fence, meet, begin, more, "%31 = wgmma_wait f32x32 %29, [%23]"]), (1, 32), "were taken by");
    let once = "%30 = wgmma.bf16 f32x32 %28, %23, %18\n %31 = wgmma_wait f32x32 %30, [%23]";
    refused(&all(&[fill, fence, meet, begin, once]), (1, 32), "returns with products under way");
    let other = "if %9 { store %15, %18, align 4 }";
    refused(&all(&[fill, fence, meet, begin, more, other, wait]), (1, 32), "without a fence and a barrier");
    refused(&all(&[fill, fence, meet, begin, more, other, fence, meet, wait]), (1, 32), "was written before the wait");
    let apart = "%28 = mul i64 %8, %22\n %29 = ptr_add ptr %18, %28\n %30 = float f32x32 1.0
 %31 = wgmma.bf16 f32x32 %30, %23, %29\n %32 = wgmma_wait f32x32 %31, [%23]";
    refused(&all(&[fill, fence, meet, apart]), (1, 32), "different columns");
    let misplaced = "%28 = ptr_add ptr %18, %22\n %29 = float f32x32 1.0\n %30 = wgmma.bf16 f32x32 %29, %23, %28
 %31 = wgmma_wait f32x32 %30, [%23]";
    refused(&all(&[fill, fence, meet, misplaced]), (1, 32), "at a multiple of 32");
    // As a number the result is none before the wait.
    let early = "%31 = extract f32 %30[0]\n store %31, %7, align 4\n %32 = wgmma_wait f32x32 %30, [%23]";
    for order in ORDERS {
        let out = outcome(&all(&[fill, fence, meet, begin, more, early]), (1, 32), order).expect("it runs");
        assert!(out[1][..128].chunks(4).all(|b| f32::from_le_bytes(b.try_into().expect("four bytes")).is_nan()));
    }
}

#[test]
fn constants_are_not_written() {
    refused(
        "%18 = load i32 %6, align 4, constant\n group_barrier\n if %9 { store %15, %3 + 512, align 4 }",
        (1, 64),
        "constant",
    );
    refused(
        "if %9 { store %15, %3 + 512, align 4 }\n group_barrier\n %18 = load i32 %6, align 4, constant",
        (1, 64),
        "constant",
    );
    accepted("%18 = load i32 %6, align 4, constant\n if %9 { store %18, %4, align 4 }", (1, 64));
}

#[test]
fn a_worker_of_one_thread_has_no_warp() {
    refused("%18 = lane_xor i32 %15[1]", (2, 1), "no warp of 32 threads");
    accepted("warp_barrier\n group_barrier\n store %15, %17, align 4", (2, 1));
}

#[test]
fn counts_of_threads_are_checked() {
    let program = program("func @main(%0: ptr, %1: i64, %2: i64) {}");
    let (compiled, mut machine) = (Compiled::new(&program), Machine::new());
    let args = machine.alloc(vec![]);
    let mut run = |workers, threads| machine.run_groups(&compiled, "main", args, workers, threads, Order::Seeded(3));
    assert_eq!(run(300, 128), Ok(()));
    assert_eq!(run(1, 1024), Ok(()));
    assert_eq!(run(256, 1), Err(InterpError::Workers(256)));
    assert_eq!(run(65536, 32), Err(InterpError::Workers(65536)));
    for threads in [0, 2, 33, 1056] {
        assert_eq!(run(1, threads), Err(InterpError::Threads(threads)));
    }
}
