//! Kernel IR to object code through LLVM.
//!
//! One lowering ([`lower`]) serves every processor; what differs between them is in the tables of
//! [`isa`]. Each function becomes a module of its own, in a context of its own, so that functions
//! compile in parallel and the bytes do not depend on how many threads there are.

mod error;
mod isa;
mod lower;
mod machine;
mod parallel;

use error::{Failure, NAME};
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::targets::FileType;
use isa::Isa;
use llmc_kernels::kir::legalize::legalize;
use llmc_kernels::kir::verify::verify;
use llmc_kernels::kir::{Function, Program};
use llmc_kernels::{Backend, BackendError, Object, Target};
use machine::Machine;

/// The LLVM code generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct LlvmBackend;

impl Backend for LlvmBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn compile(&self, program: &Program, target: &Target) -> Result<Vec<Object>, BackendError> {
        let (isa, program) = prepare(program, target)?;
        if isa.group.is_some() {
            let name = program.functions.last().map_or_else(String::new, |f| f.name.clone());
            let bytes = self.asm_text(&program, target)?.into_bytes();
            return Ok(vec![Object { name, bytes }]);
        }
        parallel::map(&program.functions, |f| object(isa, &program, f, target))
    }

    fn ir_text(&self, program: &Program, target: &Target) -> Result<String, BackendError> {
        whole(program, target, |_, module| Ok(module.print_to_string().to_string()))
    }

    fn asm_text(&self, program: &Program, target: &Target) -> Result<String, BackendError> {
        whole(program, target, |machine, module| {
            let bytes = machine.emit(module, FileType::Assembly)?;
            String::from_utf8(bytes).map_err(|_| Failure::from("the assembly is not UTF-8"))
        })
    }
}

/// The target's instruction set and the program reduced to what it has. LLVM ends the process on
/// what it cannot select, so nothing reaches it that has not been verified.
fn prepare(program: &Program, target: &Target) -> Result<(&'static Isa, Program), BackendError> {
    let isa = isa::of(target).ok_or_else(|| BackendError::Target { backend: NAME, target: target.name.clone() })?;
    let check = |p: &Program| verify(p).map_err(|e| Failure::from(e.to_string()).of("the program"));
    check(program)?;
    let legal = legalize(program, &(isa.limits)(target));
    check(&legal)?;
    Ok((isa, legal))
}

/// Object code of one function.
fn object(isa: &Isa, program: &Program, f: &Function, target: &Target) -> Result<Object, BackendError> {
    let emit = || {
        let context = Context::create();
        let machine = Machine::new(isa, target)?;
        let module = optimized(&context, &machine, (isa, target), program, &[f], &f.name)?;
        machine.emit(&module, FileType::Object)
    };
    let bytes = emit().map_err(|e: Failure| e.of(&f.name))?;
    Ok(Object { name: f.name.clone(), bytes })
}

/// The program as one module, for reading.
fn whole(
    program: &Program,
    target: &Target,
    show: impl FnOnce(&Machine, &Module) -> Result<String, Failure>,
) -> Result<String, BackendError> {
    let (isa, program) = prepare(program, target)?;
    let context = Context::create();
    let functions: Vec<&Function> = program.functions.iter().collect();
    Machine::new(isa, target)
        .and_then(|machine| {
            let module = optimized(&context, &machine, (isa, target), &program, &functions, "llmc")?;
            show(&machine, &module)
        })
        .map_err(|e| e.of("the program"))
}

/// A module of these functions, verified and optimised.
fn optimized<'c>(
    context: &'c Context,
    machine: &Machine,
    (isa, target): (&Isa, &Target),
    program: &Program,
    functions: &[&Function],
    name: &str,
) -> Result<Module<'c>, Failure> {
    let module = context.create_module(name);
    machine.prepare(&module);
    for f in functions {
        lower::function(context, &module, isa, machine, target, program, f)?;
    }
    if isa.group.is_some() {
        let step = program.functions.last().and_then(|f| module.get_function(&f.name)).ok_or("a program has a step")?;
        isa::nvptx::entry(context, &module, step, target.threads)?;
    }
    module.verify()?;
    machine.optimize(&module)?;
    Ok(module)
}
