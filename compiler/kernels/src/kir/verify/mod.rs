//! Checks programs. Everything that works on KIR may rely on what is checked here.
//!
//! - Function names are unique symbols and not the runtime's barrier. Calls go to functions further
//!   up in the program, with arguments of their parameters' types.
//! - Parameters begin with `args: ptr, worker: i64, workers: i64`; functions yield nothing.
//! - Every value has a valid type (lanes a power of two up to 64, pointers not in vectors), is
//!   defined exactly once, and before it is used: by an earlier instruction of the same region or
//!   one around it, or as a region's parameter.
//! - Operands, results, parameters and yielded values have the types the instruction asks for; the
//!   table is in `types.rs`. Truth values are neither loaded nor stored nor reinterpreted.
//! - Alignments are powers of two; stack memory is made in no region but the function's.
//! - Between an `arrive` and its `await`, which is in the same region, nothing is stored.
//! - A `wgmma_wait` follows each `wgmma` in the same region, and keeps the factors of all since the last one.
//!
//! Not checked, as it depends on values: that all workers reach the same barriers, and threads of a
//! worker or a warp what they do together; that shifts, divisors and conversions stay in range; that
//! memory accesses are valid; and that no byte is written by one thread and accessed by another with
//! no barrier between. The interpreter checks these on the paths it runs.

mod arrive;
mod products;
mod types;

use super::func::{Function, Program, Region, Val};
use super::inst::{Inst, Op};
use super::print::line;
use super::types::{Elem, Ty};
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// One thing wrong with a program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("@{function}{}: {message}", .instruction.as_ref().map(|i| format!(": `{i}`")).unwrap_or_default())]
pub struct VerifyError {
    /// The function.
    pub function: String,
    /// The instruction, printed, if one is at fault.
    pub instruction: Option<String>,
    /// What was found and what was expected.
    pub message: String,
}

/// Everything wrong with a program; not empty. Printed one error a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct VerifyErrors(pub Vec<VerifyError>);

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(VerifyError::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Checks a program.
///
/// # Errors
/// All [`VerifyErrors`] found.
pub fn verify(program: &Program) -> Result<(), VerifyErrors> {
    let mut errors = Vec::new();
    let mut callees = BTreeMap::new();
    for function in &program.functions {
        let mut checker =
            Checker { function, callees: &callees, states: vec![State::Never; function.types.len()], errors: vec![] };
        checker.function();
        errors.append(&mut checker.errors);
        let params = function.body.params.iter().filter_map(|p| function.types.get(p.0 as usize).copied()).collect();
        let stores = arrive::stores(&function.body, &callees);
        callees.insert(function.name.as_str(), Callee { params, stores });
    }
    if errors.is_empty() { Ok(()) } else { Err(VerifyErrors(errors)) }
}

/// Where a value stands while its function is walked.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// No definition seen yet.
    Never,
    /// Defined, usable here.
    InScope,
    /// Defined in a region that has ended.
    OutOfScope,
}

/// What callers need to know of a function.
struct Callee {
    params: Vec<Ty>,
    /// Whether it stores to memory that others may read.
    stores: bool,
}

struct Checker<'a> {
    function: &'a Function,
    callees: &'a BTreeMap<&'a str, Callee>,
    states: Vec<State>,
    errors: Vec<VerifyError>,
}

impl Checker<'_> {
    fn error(&mut self, inst: Option<&Inst>, message: impl Into<String>) {
        self.errors.push(VerifyError {
            function: self.function.name.clone(),
            instruction: inst.map(|i| line(self.function, i)),
            message: message.into(),
        });
    }

    fn check(&mut self, inst: Option<&Inst>, result: Result<(), String>) {
        if let Err(message) = result {
            self.error(inst, message);
        }
    }

    fn function(&mut self) {
        let function = self.function;
        self.name(&function.name);
        for (i, ty) in function.types.iter().enumerate() {
            self.check(None, types::valid(*ty).map_err(|e| format!("%{i}: {e}")));
        }
        for p in &function.body.params {
            self.define(None, *p);
        }
        let params = self.types_of(&function.body.params);
        if !params.is_some_and(|p| p.starts_with(&[Ty::PTR, Ty::I64, Ty::I64])) {
            self.error(None, "parameters do not begin with a ptr and two i64");
        }
        self.body(&function.body, true);
        if !function.body.yields.is_empty() {
            self.error(None, "a function yields no values");
        }
        for i in 0..self.states.len() {
            if self.states[i] == State::Never {
                self.error(None, format!("%{i} is never defined"));
            }
        }
    }

    fn name(&mut self, name: &str) {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(valid) || name.starts_with(|c: char| c.is_ascii_digit()) {
            self.error(None, "the name is not letters, digits and `_`, or starts with a digit");
        }
        if name == llmc_abi::step::BARRIER_SYMBOL {
            self.error(None, "the name is the runtime's barrier function");
        }
        if self.callees.contains_key(name) {
            self.error(None, "a function further up has this name");
        }
    }

    /// Types of values, if they all exist.
    fn types_of(&self, values: &[Val]) -> Option<Vec<Ty>> {
        values.iter().map(|v| self.function.types.get(v.0 as usize).copied()).collect()
    }

    fn define(&mut self, inst: Option<&Inst>, v: Val) {
        match self.states.get_mut(v.0 as usize) {
            None => self.error(inst, format!("{v} has no type")),
            Some(state @ State::Never) => *state = State::InScope,
            Some(_) => self.error(inst, format!("{v} is defined twice")),
        }
    }

    fn use_all(&mut self, inst: Option<&Inst>, values: &[Val]) {
        for v in values {
            match self.states.get(v.0 as usize) {
                Some(State::InScope) => {}
                Some(State::OutOfScope) => self.error(inst, format!("{v} is defined in a region that has ended")),
                Some(State::Never) | None => self.error(inst, format!("{v} is not defined before")),
            }
        }
    }

    fn body(&mut self, region: &Region, top: bool) {
        for inst in &region.body {
            self.inst(inst, top);
        }
        self.meetings(region);
        self.products(region);
        self.use_all(None, &region.yields);
    }

    /// A region inside `inst`: what it defines ends with it.
    fn region(&mut self, inst: &Inst, region: &Region, params: &[Ty], yields: &[Ty]) {
        let before = self.states.clone();
        for p in &region.params {
            self.define(Some(inst), *p);
        }
        self.same_types(inst, "parameters of the region", &region.params, params);
        self.body(region, false);
        self.same_types(inst, "yielded values", &region.yields, yields);
        for (state, before) in self.states.iter_mut().zip(before) {
            if *state == State::InScope && before == State::Never {
                *state = State::OutOfScope;
            }
        }
    }

    fn same_types(&mut self, inst: &Inst, what: &str, values: &[Val], expected: &[Ty]) {
        if let Some(found) = self.types_of(values)
            && found != expected
        {
            let [found, expected] = [&found, expected].map(types::names);
            self.error(Some(inst), format!("{what}: found {found}, expected {expected}"));
        }
    }

    fn inst(&mut self, inst: &Inst, top: bool) {
        self.use_all(Some(inst), &inst.op.operands());
        match &inst.op {
            Op::Stack { .. } if !top => self.error(Some(inst), "stack memory is made in a region"),
            Op::Shared { .. } if !top => self.error(Some(inst), "shared memory is made in a region"),
            Op::Call { callee, args } => self.call(inst, callee, args),
            Op::For { init, body, .. } => {
                if let Some(carried) = self.types_of(init) {
                    let params: Vec<Ty> = std::iter::once(Ty::I64).chain(carried.iter().copied()).collect();
                    self.region(inst, body, &params, &carried);
                    self.same_types(inst, "results", &inst.results, &carried);
                }
            }
            Op::If { then, els, .. } => {
                if let Some(results) = self.types_of(&inst.results) {
                    self.region(inst, then, &[], &results);
                    self.region(inst, els, &[], &results);
                }
            }
            _ => {}
        }
        if let (Some(operands), Some(results)) = (self.types_of(&inst.op.operands()), self.types_of(&inst.results)) {
            self.check(Some(inst), types::check(&inst.op, &operands, &results));
        }
        for v in &inst.results {
            self.define(Some(inst), *v);
        }
    }

    fn call(&mut self, inst: &Inst, callee: &str, args: &[Val]) {
        match self.callees.get(callee) {
            None => self.error(Some(inst), format!("no function further up is named @{callee}")),
            Some(Callee { params, .. }) => self.same_types(inst, "arguments", args, params),
        }
    }
}

/// True for i1, alone or in a vector.
fn is_truth(ty: Ty) -> bool {
    ty.elem == Elem::I1
}
