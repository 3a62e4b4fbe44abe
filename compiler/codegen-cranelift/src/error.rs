//! What Cranelift says, as the error of a function.

use cranelift_module::ModuleError;
use llmc_kernels::BackendError;

/// Name of the back end on the command line and in messages.
pub const NAME: &str = "cranelift";

/// A message that does not yet name the function it is about.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// The error with the function's name.
    pub fn of(self, function: &str) -> BackendError {
        BackendError::Function { backend: NAME, function: function.into(), message: self.0 }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure(message)
    }
}

impl From<ModuleError> for Failure {
    fn from(e: ModuleError) -> Failure {
        // The alternate form of a compilation error has the verifier's findings.
        Failure(format!("{e:#}"))
    }
}
