//! LLVM's target machine: CPU and feature strings, passes, emission.
//!
//! The CPU is always the architecture's base plus explicit features, never the name of the CPU
//! this runs on, so the same input gives the same bytes everywhere.

use crate::error::Failure;
use crate::isa::Isa;
use inkwell::OptimizationLevel;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{CodeModel, FileType, RelocMode, Target as LlvmTarget, TargetMachine, TargetTriple};
use llmc_kernels::Target;

/// KIR is vectorised and unrolled by the kernels: what is left is cleaning up. There is no loop
/// unrolling or vectorising here, no inlining, and nothing that turns loops into libc calls.
const PASSES: &str = "function(\
    sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,\
    loop-mssa(licm),early-cse<memssa>,instcombine<no-verify-fixpoint>,\
    loop(indvars),simplifycfg,adce)";

/// Functions of groups become one kernel, whose addresses then show which memory they are of. What is the
/// same in all of them is not computed once for all: it would take registers from those in between.
const GROUP_PASSES: &str = "function(\
    sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,\
    loop-mssa(licm),early-cse<memssa>,instcombine<no-verify-fixpoint>,\
    loop(indvars),simplifycfg,adce),\
    always-inline,globaldce,function(infer-address-spaces,instcombine<no-verify-fixpoint>,simplifycfg,adce)";

/// Generates code for one target.
pub struct Machine {
    machine: TargetMachine,
    passes: &'static str,
    /// Function attributes that repeat the target, as LLVM wants them.
    pub attributes: Vec<(&'static str, String)>,
}

impl Machine {
    /// The machine of a target.
    pub fn new(isa: &Isa, target: &Target) -> Result<Machine, Failure> {
        (isa.initialize)();
        let triple = TargetTriple::create(target.triple);
        let (cpu, features) = ((isa.cpu)(target), (isa.features)(target));
        let machine = LlvmTarget::from_triple(&triple)?
            .create_target_machine(
                &triple,
                cpu,
                &features,
                OptimizationLevel::Aggressive,
                RelocMode::PIC,
                CodeModel::Small,
            )
            .ok_or_else(|| Failure::from(format!("LLVM has no machine for {}", target.triple)))?;
        machine.set_asm_verbosity(false);
        let mut attributes = vec![("target-cpu", cpu.to_string()), ("target-features", features)];
        attributes.extend((isa.tuning)(target).iter().map(|(k, v)| (*k, v.to_string())));
        let passes = if isa.group.is_some() { GROUP_PASSES } else { PASSES };
        Ok(Machine { machine, passes, attributes })
    }

    /// Gives a new module the target's triple and data layout.
    pub fn prepare(&self, module: &Module) {
        module.set_triple(&self.machine.get_triple());
        module.set_data_layout(&self.machine.get_target_data().get_data_layout());
    }

    /// Runs the passes.
    pub fn optimize(&self, module: &Module) -> Result<(), Failure> {
        Ok(module.run_passes(self.passes, &self.machine, PassBuilderOptions::create())?)
    }

    /// Object code or assembly.
    pub fn emit(&self, module: &Module, kind: FileType) -> Result<Vec<u8>, Failure> {
        let buffer = self.machine.write_to_memory_buffer(module, kind)?;
        let bytes = buffer.as_slice();
        // Assembly comes with a NUL at the end.
        Ok(if kind == FileType::Assembly { bytes.strip_suffix(&[0]).unwrap_or(bytes) } else { bytes }.to_vec())
    }
}
