//! What LLVM says, as the error of a function.

use inkwell::builder::BuilderError;
use inkwell::support::LLVMString;
use llmc_kernels::BackendError;

/// Name of the back end on the command line and in messages.
pub const NAME: &str = "llvm";

/// A message that does not yet name the function it is about.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// The error with the function's name.
    pub fn of(self, function: &str) -> BackendError {
        BackendError::Function { backend: NAME, function: function.into(), message: self.0 }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Failure {
        Failure(message.into())
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure(message)
    }
}

impl From<BuilderError> for Failure {
    fn from(e: BuilderError) -> Failure {
        Failure(e.to_string())
    }
}

impl From<LLVMString> for Failure {
    fn from(e: LLVMString) -> Failure {
        Failure(e.to_string())
    }
}
