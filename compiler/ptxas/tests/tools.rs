//! The real tools on small kernels; skipped where they are not there.

use llmc_ptxas::{Assembled, Disassembler, Error, Gate, Tool, functions};
use std::path::{Path, PathBuf};

/// Where `cargo xtask test` puts the tools.
fn fetched() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cuda-tools")
}

fn assembler() -> Option<Tool> {
    let tool = Tool::find(Some(&fetched())).or_else(|| Tool::find(None));
    if tool.is_none() {
        eprintln!("skipped: {}", Tool::require(None).expect_err("none was found"));
    }
    tool
}

fn disassembler() -> Option<Disassembler> {
    let tool = Disassembler::find(Some(&fetched())).or_else(|| Disassembler::find(None));
    if tool.is_none() {
        eprintln!("skipped: {}", Disassembler::require(None).expect_err("none was found"));
    }
    tool
}

/// A kernel `k(p)` around some instructions on `%rd1`, the address in p.
fn kernel(directives: &str, body: &str) -> String {
    format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {directives}\n{{\n\
         .reg .b64 %rd<4>;\n.reg .b32 %r<9>;\n.reg .f32 %f<200>;\n.reg .pred %q;\n\
         ld.param.u64 %rd1, [p];\ncvta.to.global.u64 %rd1, %rd1;\n{body}\nret;\n}}\n"
    )
}

/// Sums 4 x 16 bytes, 16 bytes a round.
const LOOP: &str = "\
.shared .align 16 .b8 room[512];
mov.u32 %r1, 0;
add.s64 %rd2, %rd1, 4096;
mov.u32 %r7, %clock;
again:
ld.global.nc.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1];
add.u32 %r1, %r1, %r2;
add.u32 %r1, %r1, %r3;
add.u32 %r1, %r1, %r4;
add.u32 %r1, %r1, %r5;
add.s64 %rd1, %rd1, 16;
add.u32 %r7, %r7, 1;
setp.lt.u32 %q, %r7, 100;
@%q bra again;
st.shared.u32 [room], %r1;
bar.sync 0;
ld.shared.u32 %r1, [room+4];
st.global.u32 [%rd2], %r1;";

/// Keeps 64 values alive.
fn hungry() -> String {
    let loads = (0..64).map(|i| format!("ld.volatile.global.f32 %f{i}, [%rd1+{}];", 4 * i));
    let stores = (0..64).map(|i| format!("st.volatile.global.f32 [%rd1+{}], %f{};", 4 * i, 63 - i));
    loads.chain(stores).collect::<Vec<_>>().join("\n")
}

fn assemble(tool: &Tool, ptx: &str, arch: &str) -> Assembled {
    tool.assemble(ptx, arch).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn one_text_assembles_for_every_generation() {
    let Some(tool) = assembler() else { return };
    let version = tool.version().expect("a release");
    assert!(version.major >= 11, "{version}");
    for arch in ["sm_80", "sm_89", "sm_90a"] {
        let made = assemble(&tool, &kernel("", LOOP), arch);
        assert_eq!(&made.cubin[..4], b"\x7fELF");
        let [k] = &made.kernels[..] else { panic!("{:?}", made.kernels) };
        assert_eq!((k.name.as_str(), k.shared_bytes, k.stack_bytes, k.spill_loads), ("k", 512, 0, 0));
        assert!((4..64).contains(&k.registers), "{k:?}");
        assert_eq!(made.warnings, [""; 0]);
    }
}

#[test]
fn spills_are_reported_and_stopped() {
    let Some(tool) = assembler() else { return };
    let made = assemble(&tool, &kernel(".maxnreg 24", &hungry()), "sm_80");
    let k = &made.kernels[0];
    assert!(k.spill_stores > 0 && k.spill_loads > 0 && k.stack_bytes > 0 && k.registers <= 24, "{k:?}");
    let found = Gate::ANY.check_report(&made).expect_err("it spills").to_string();
    assert!(found.contains("k: ") && found.contains("bytes of spill stores"), "{found}");
    let roomy = assemble(&tool, &kernel("", &hungry()), "sm_80");
    assert_eq!(Gate::ANY.check_report(&roomy), Ok(()));
}

#[test]
fn refusals_name_tool_generation_and_line() {
    let Some(tool) = assembler() else { return };
    let error = tool.assemble(&kernel("", "mov.u32 %r1, %nothing;"), "sm_80").expect_err("there is no such register");
    let message = error.to_string();
    assert!(matches!(error, Error::Refused { .. }), "{message}");
    let parts = [tool.path().to_str().expect("a plain path"), "sm_80", "`mov.u32 %r1, %nothing;`"];
    assert!(parts.iter().all(|p| message.contains(p)), "{message}");
    let unknown = tool.assemble(&kernel("", ""), "sm_12345").expect_err("there is no such GPU").to_string();
    assert!(unknown.contains("sm_12345"), "{unknown}");
}

#[test]
fn machine_code_shows_instructions_and_loops() {
    let (Some(tool), Some(disassembler)) = (assembler(), disassembler()) else { return };
    for arch in ["sm_80", "sm_90a"] {
        let made = assemble(&tool, &kernel("", LOOP), arch);
        let sass = disassembler.sass(&made.cubin).expect("a listing");
        let gate = Gate { require: &["LDG.128.CONSTANT", "BAR", "STS"], forbid: &["LDL", "CALL"], ..Gate::ANY };
        assert_eq!(gate.check(&made, &sass), Ok(()), "{sass}");
        let all = functions(&sass);
        let loops = all[0].loops();
        assert!(!loops.is_empty(), "{sass}");
        assert!(all[0].body(&loops[0]).iter().any(|i| i.is("LDG.128")), "{sass}");
        let strict = Gate { require: &["HMMA"], forbid: &["LDG"], ..Gate::ANY };
        let found = strict.check(&made, &sass).expect_err("it is no matrix product").to_string();
        assert!(found.contains("k: no HMMA") && found.contains("x LDG, which is forbidden"), "{found}");
    }
}

#[test]
fn bytes_that_are_no_cubin_are_an_error() {
    let Some(disassembler) = disassembler() else { return };
    let error = disassembler.sass(b"nothing").expect_err("that is no cubin").to_string();
    assert!(error.contains("nvdisasm") && error.contains("a listing of machine code"), "{error}");
}
