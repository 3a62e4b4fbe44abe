//! What the interpreter refuses, and that it names the place.

mod common;

use common::{program, run};
use llmc_kernels::kir::interp::{Fault, InterpError, Machine, Order};

const ORDERS: [Order; 3] = [Order::Forward, Order::Reverse, Order::Seeded(7)];

/// A function that has loaded two pointers, %3 and %4; values go on at %5.
fn with_pointers(body: &str) -> String {
    format!(
        "func @main(%0: ptr, %1: i64, %2: i64) {{
           %3 = load ptr %0, align 8
           %4 = load ptr %0 + 8, align 8
           {body}
         }}"
    )
}

fn outcome(body: &str, workers: usize, order: Order) -> Result<(), String> {
    let buffers = [vec![0; 64], vec![1; 100]];
    let result = run(&program(&with_pointers(body)), &buffers, workers, order);
    result.map(|_| ()).map_err(|e| e.to_string())
}

#[test]
fn faults_name_instruction_and_reason() {
    let cases = [
        ("%5 = load i64 %3 + 64, align 8", "`%5 = load i64 %3 + 64, align 8`"),
        ("%5 = load i64 %3 + 64, align 8", "are not in a buffer (byte 64 of a buffer of 64 bytes)"),
        ("%5 = load i32x4 %4 + 96, align 4", "16 bytes at"),
        ("%5 = load i8 %3 - 1, align 1", "byte -1 of a buffer"),
        ("%5 = load i32 %3 + 2, align 4", "is not aligned to 4"),
        ("%5 = load i8 %3, align 128", "is not aligned to 128"),
        ("store %3, %0, align 8", "is read-only"),
        ("%5 = load ptr %3, align 8\n store %1, %5, align 8", "8 bytes at 0x0 are not in a buffer"),
        ("%5 = stack ptr 16\n %6 = load i32 %5 + 4, align 4", "never written"),
        ("%5 = int i64 0\n %6 = div i64 %2, %5", "the divisor is 0"),
        ("%5 = int i64 -1\n %6 = rem i64 %2, %5", "the divisor is -1"),
        ("%5 = int i32 32\n %6 = shl i32 %5, %5", "the shift is not less than the width"),
        ("%5 = float f32 2147483648.0\n %6 = float_to_int i32 %5", "does not fit"),
        ("%5 = float f32 0x7ff8000000000000\n %6 = float_to_int i32 %5", "does not fit"),
        ("%5 = int i64 0\n for %6 = %5 to %2 step %5 {}", "the loop's step is not positive"),
    ];
    for (body, expected) in cases {
        let error = outcome(body, 1, Order::Forward).expect_err(body);
        assert!(error.contains(expected), "{body}: {error}");
        assert!(error.starts_with("worker 0: @main: `"), "{error}");
    }
}

#[test]
fn races_are_found_in_every_order() {
    let cases = [
        // All write the same bytes.
        "store %1, %3, align 8",
        // One writes what the others read.
        "%5 = int i64 0\n %6 = cmp.eq i1 %1, %5\n if %6 { store %1, %3, align 8 } else { %7 = load i8 %3 + 7, align 1 }",
        // Several read what one writes.
        "%5 = int i64 1\n %6 = cmp.eq i1 %1, %5\n %7 = load i8 %3, align 1\n if %6 { store %7, %3, align 1 }",
        // The barrier comes too early.
        "store %1, %4, align 8\n barrier 0",
    ];
    for body in cases {
        for order in ORDERS {
            let error = outcome(body, 3, order).expect_err(body);
            assert!(error.contains("data race: byte"), "{body}: {error}");
        }
        assert_eq!(outcome(body, 1, Order::Forward), Ok(()), "one worker does not race");
    }
}

#[test]
fn barriers_order_accesses() {
    let body = "%5 = int i64 0
        %6 = cmp.eq i1 %1, %5
        if %6 { store %1, %3, align 8 }
        barrier 0
        %7 = load i64 %3, align 8
        barrier 1
        if %6 { store %2, %3, align 8 }";
    for order in ORDERS {
        assert_eq!(outcome(body, 3, order), Ok(()));
    }
}

#[test]
fn workers_meet_at_the_same_barriers() {
    let skip = "%5 = int i64 1\n %6 = cmp.ne i1 %1, %5\n if %6 { barrier 3 }";
    let other = "%5 = int i64 1\n %6 = cmp.ne i1 %1, %5\n if %6 { barrier 3 } else { barrier 3 }";
    for order in ORDERS {
        let error = outcome(skip, 2, order).expect_err("one worker has returned");
        assert!(error.contains("worker 0 waits at barrier 3") && error.contains("worker 1 has returned"), "{error}");
        let error = outcome(other, 2, order).expect_err("two barriers");
        assert!(error.contains("worker 1 waits at barrier 3 in step"), "{error}");
    }
}

#[test]
fn stack_memory_ends_with_its_function() {
    let source = "func @leak(%0: ptr, %1: i64, %2: i64, %3: ptr) {
           %4 = stack ptr 8
           store %1, %4, align 8
           store %4, %3, align 8
         }
         func @main(%0: ptr, %1: i64, %2: i64) {
           %3 = stack ptr 8
           call @leak(%0, %1, %2, %3)
           %4 = load ptr %3, align 8
           %5 = load i64 %4, align 8
         }";
    let error = run(&program(source), &[], 1, Order::Forward).expect_err("the memory is gone").to_string();
    assert!(error.contains("its function has returned"), "{error}");
}

#[test]
fn buffers_without_content_are_written_first() {
    let mut machine = Machine::new();
    let buffer = machine.alloc_uninit(16);
    let reads = program("func @main(%0: ptr, %1: i64, %2: i64) { %3 = load i64 %0, align 8 }");
    let writes = program("func @main(%0: ptr, %1: i64, %2: i64) { store %2, %0, align 8 }");
    let first = machine.run(&reads, "main", buffer, 1, Order::Forward);
    assert!(matches!(first, Err(InterpError::Fault { fault: Fault::Uninitialized { addr }, .. }) if addr == buffer));
    assert_eq!(machine.run(&writes, "main", buffer, 1, Order::Forward), Ok(()));
    assert_eq!(machine.run(&reads, "main", buffer, 1, Order::Forward), Ok(()));
    assert_eq!(machine.buffer(buffer)[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn entries_and_workers_are_checked() {
    let program = program("func @f(%0: ptr, %1: i64, %2: i64, %3: f32) {}\nfunc @main(%0: ptr, %1: i64, %2: i64) {}");
    let mut machine = Machine::new();
    let args = machine.alloc(vec![]);
    let mut run = |entry: &str, workers| machine.run(&program, entry, args, workers, Order::Forward);
    assert_eq!(run("main", 255), Ok(()));
    assert_eq!(run("main", 0), Err(InterpError::Workers(0)));
    assert_eq!(run("main", 256), Err(InterpError::Workers(256)));
    assert_eq!(run("f", 1), Err(InterpError::Entry("f".into())));
    assert_eq!(run("g", 1), Err(InterpError::Entry("g".into())));
}
