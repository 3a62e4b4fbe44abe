//! What a kernel must be like, checked without a GPU.

use crate::report::KernelReport;
use crate::sass::{self, Function};
use crate::tool::Assembled;
use std::fmt;

/// What kernels must be like. No gate lets a kernel spill registers, keep a stack, or get a warning
/// that is not listed.
///
/// ```
/// # use llmc_ptxas::{Assembled, Gate, KernelReport};
/// const GEMM: Gate = Gate { require: &["HMMA.16816", "LDSM"], forbid: &["CALL"], max_registers: 128, ..Gate::ANY };
/// let kernel = KernelReport { name: "gemm".into(), registers: 140, ..KernelReport::default() };
/// let assembled = Assembled { cubin: vec![], kernels: vec![kernel], warnings: vec![] };
/// let found = GEMM.check(&assembled, ".text.gemm:\n /*0000*/ LDSM.16.M88.4 R4, [R8] ;").unwrap_err();
/// assert_eq!(found.to_string(), "gemm: 140 registers, at most 128 are allowed\ngemm: no HMMA.16816");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Instructions that each kernel must have ([`crate::Instruction::is`]).
    pub require: &'static [&'static str],
    /// Instructions that none may have.
    pub forbid: &'static [&'static str],
    /// Registers of each thread.
    pub max_registers: u32,
    /// Bytes of shared memory that a kernel may declare.
    pub max_shared_bytes: u32,
    /// Parts of warnings that do not matter.
    pub allow_warnings: &'static [&'static str],
}

impl Gate {
    /// No spills, no stack, no warnings; the rest is free.
    pub const ANY: Gate =
        Gate { require: &[], forbid: &[], max_registers: 255, max_shared_bytes: u32::MAX, allow_warnings: &[] };

    /// Checks all kernels of a cubin; `sass` is its listing.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn check(&self, assembled: &Assembled, sass: &str) -> Result<(), Violations> {
        let code = sass::functions(sass);
        self.verdict(assembled, |kernel| match code.iter().find(|f| f.name == kernel.name) {
            Some(function) => [self.of_report(kernel), self.of_code(function)].concat(),
            None => vec!["it is not in the listing of machine code".into()],
        })
    }

    /// Checks all that the assembler's report says, where there is no disassembler.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn check_report(&self, assembled: &Assembled) -> Result<(), Violations> {
        self.verdict(assembled, |kernel| self.of_report(kernel))
    }

    fn verdict(&self, of: &Assembled, problems: impl Fn(&KernelReport) -> Vec<String>) -> Result<(), Violations> {
        let mut found: Vec<String> = of.warnings.iter().filter_map(|w| self.of_warning(w)).collect();
        for kernel in &of.kernels {
            found.extend(problems(kernel).iter().map(|p| format!("{}: {p}", kernel.name)));
        }
        if found.is_empty() { Ok(()) } else { Err(Violations(found)) }
    }

    fn of_warning(&self, warning: &str) -> Option<String> {
        let allowed = self.allow_warnings.iter().any(|a| warning.contains(a));
        (!allowed).then(|| format!("warning: {warning}"))
    }

    fn of_report(&self, kernel: &KernelReport) -> Vec<String> {
        let limits = [
            (kernel.registers, self.max_registers, "registers"),
            (kernel.shared_bytes, self.max_shared_bytes, "bytes of shared memory"),
            (kernel.stack_bytes, 0, "bytes of stack"),
            (kernel.spill_stores, 0, "bytes of spill stores"),
            (kernel.spill_loads, 0, "bytes of spill loads"),
        ];
        let over = limits.iter().filter(|(found, limit, _)| found > limit);
        over.map(|(found, limit, what)| format!("{found} {what}, at most {limit} are allowed")).collect()
    }

    fn of_code(&self, code: &Function<'_>) -> Vec<String> {
        let missing = self.require.iter().filter(|p| code.count(p) == 0).map(|p| format!("no {p}"));
        let counts = self.forbid.iter().map(|p| (p, code.count(p))).filter(|(_, n)| *n > 0);
        missing.chain(counts.map(|(p, n)| format!("{n} x {p}, which is forbidden"))).collect()
    }
}

/// What a gate found, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations(pub Vec<String>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Violations {}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(kernel: KernelReport, warnings: &[&str]) -> Assembled {
        let warnings = warnings.iter().map(|w| (*w).to_owned()).collect();
        Assembled { cubin: vec![], kernels: vec![KernelReport { name: "k".into(), ..kernel }], warnings }
    }

    const SASS: &str = ".text.k:\n /*0000*/ LDG.E.128 R4, [R2.64] ;\n /*0010*/ STL [R1], R4 ;\n";

    #[test]
    fn everything_wrong_is_listed() {
        let gate = Gate { require: &["LDG.128", "HMMA"], forbid: &["STL", "LDL"], max_registers: 32, ..Gate::ANY };
        let kernel = KernelReport { registers: 33, spill_stores: 4, ..KernelReport::default() };
        let found = gate.check(&assembled(kernel, &["wgmma is serialized"]), SASS).expect_err("much is wrong");
        let expected = [
            "warning: wgmma is serialized",
            "k: 33 registers, at most 32 are allowed",
            "k: 4 bytes of spill stores, at most 0 are allowed",
            "k: no HMMA",
            "k: 1 x STL, which is forbidden",
        ];
        assert_eq!(found.0, expected);
    }

    #[test]
    fn allowed_warnings_pass_and_missing_code_does_not() {
        let gate = Gate { allow_warnings: &["multicast"], ..Gate::ANY };
        let fine = assembled(KernelReport::default(), &["Advisory: '.multicast::cluster'"]);
        assert_eq!(gate.check(&fine, SASS), Ok(()));
        assert_eq!(gate.check_report(&fine), Ok(()));
        let found = gate.check(&fine, "").expect_err("there is no code");
        assert_eq!(found.to_string(), "k: it is not in the listing of machine code");
    }
}
