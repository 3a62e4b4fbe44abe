//! Kernel IR to object code through Cranelift: no system dependency, vectors of 128 bits.
//!
//! `legalize` reduces a program to what [`limits`] allows; [`lower`] maps the rest one to one.

mod error;
mod limits;
mod lower;
mod machine;

use cranelift_codegen::Context;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_module::{FuncId, Linkage, Module};
use cranelift_object::{ObjectBuilder, ObjectModule};
use error::{Failure, NAME};
use llmc_kernels::kir::legalize::legalize;
use llmc_kernels::kir::verify::verify;
use llmc_kernels::kir::{Function, Program};
use llmc_kernels::{Backend, BackendError, Object, Target};
use lower::Callees;

/// The Cranelift code generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct CraneliftBackend;

impl Backend for CraneliftBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn compile(&self, program: &Program, target: &Target) -> Result<Vec<Object>, BackendError> {
        let (mut unit, program) = Unit::new(program, target)?;
        for f in &program.functions {
            unit.define(f).map_err(|e| e.of(&f.name))?;
        }
        let bytes = unit.module.finish().emit().map_err(|e| Failure::from(e.to_string()).of("the program"))?;
        Ok(vec![Object { name: "llmc".into(), bytes }])
    }

    fn ir_text(&self, program: &Program, target: &Target) -> Result<String, BackendError> {
        let (mut unit, program) = Unit::new(program, target)?;
        let text = program.functions.iter().map(|f| {
            let context = unit.lower(f).map_err(|e| e.of(&f.name))?;
            Ok(format!("; {}\n{}", f.name, context.func.display()))
        });
        text.collect::<Result<Vec<_>, _>>().map(|t| t.join("\n"))
    }

    fn asm_text(&self, program: &Program, target: &Target) -> Result<String, BackendError> {
        let (mut unit, program) = Unit::new(program, target)?;
        let text = program.functions.iter().map(|f| {
            let body = unit.assembly(f).map_err(|e| e.of(&f.name))?;
            Ok(format!("{}:\n{body}", f.name))
        });
        text.collect::<Result<Vec<_>, _>>().map(|t| t.join("\n"))
    }
}

/// An object file under construction.
struct Unit {
    module: ObjectModule,
    callees: Callees,
}

impl Unit {
    /// An object that declares all functions of the program, and the program it can compile.
    fn new(program: &Program, target: &Target) -> Result<(Unit, Program), BackendError> {
        let isa = machine::isa(target)?;
        verify(program).map_err(|e| Failure::from(e.to_string()).of("the program"))?;
        let program = legalize(program, &limits::of(target));
        let unit = Unit::declare(isa, &program).map_err(|e| e.of("the program"))?;
        Ok((unit, program))
    }

    fn declare(isa: OwnedTargetIsa, program: &Program) -> Result<Unit, Failure> {
        let builder = ObjectBuilder::new(isa, "llmc", cranelift_module::default_libcall_names())?;
        let mut module = ObjectModule::new(builder);
        let mut ids = Vec::new();
        for f in &program.functions {
            let signature = lower::signature(&module, f.body.params.iter().map(|p| f.ty(*p)));
            ids.push((f.name.clone(), module.declare_function(&f.name, Linkage::Hidden, &signature)?));
        }
        let callees = Callees::new(&mut module, ids)?;
        Ok(Unit { module, callees })
    }

    fn lower(&mut self, f: &Function) -> Result<Context, Failure> {
        let mut context = self.module.make_context();
        lower::function(&mut self.module, &self.callees, f, &mut context)?;
        Ok(context)
    }

    fn define(&mut self, f: &Function) -> Result<(), Failure> {
        let mut context = self.lower(f)?;
        Ok(self.module.define_function(self.id(f)?, &mut context)?)
    }

    fn assembly(&mut self, f: &Function) -> Result<String, Failure> {
        let mut context = self.lower(f)?;
        context.set_disasm(true);
        self.module.define_function(self.id(f)?, &mut context)?;
        let code = context.compiled_code().and_then(|c| c.vcode.clone());
        code.ok_or_else(|| Failure::from("Cranelift kept no text of its code".to_string()))
    }

    fn id(&self, f: &Function) -> Result<FuncId, Failure> {
        self.callees.id(&f.name)
    }
}
