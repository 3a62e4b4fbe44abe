//! What a code generator implements.

use crate::kir::Program;
use crate::target::Target;
use thiserror::Error;

/// A relocatable object file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Name, for messages.
    pub name: String,
    /// Bytes of an ELF relocatable file.
    pub bytes: Vec<u8>,
}

/// Why code could not be generated.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The target is not one this back end can generate code for.
    #[error("the {backend} back end has no code generation for {target}; choose another --target or --backend")]
    Target {
        /// Name of the back end.
        backend: &'static str,
        /// Name of the target.
        target: String,
    },
    /// The code generator refused a function: a bug of llmc.
    #[error("{backend}: {function}: {message}")]
    Function {
        /// Name of the back end.
        backend: &'static str,
        /// Name of the function.
        function: String,
        /// What the code generator said.
        message: String,
    },
    /// The process that generated code failed.
    #[error("{backend}: {message}")]
    Process {
        /// Name of the back end.
        backend: &'static str,
        /// How it ended and what it said.
        message: String,
    },
}

/// A code generator.
pub trait Backend: Send + Sync {
    /// Name as on the command line.
    fn name(&self) -> &'static str;

    /// Object code of a program: every function a global symbol of its name, calls to
    /// `llmc_abi::step::BARRIER_SYMBOL` left undefined, no other undefined symbol. Independent
    /// functions may be compiled in parallel; the result does not depend on how.
    ///
    /// # Errors
    /// [`BackendError`] if the target is unknown here or a function cannot be compiled.
    fn compile(&self, program: &Program, target: &Target) -> Result<Vec<Object>, BackendError>;

    /// Text of the code generator's own IR, for `--emit llvm-ir`.
    ///
    /// # Errors
    /// As [`Backend::compile`].
    fn ir_text(&self, program: &Program, target: &Target) -> Result<String, BackendError>;

    /// Assembly text, for `--emit asm`.
    ///
    /// # Errors
    /// As [`Backend::compile`].
    fn asm_text(&self, program: &Program, target: &Target) -> Result<String, BackendError>;
}
