//! Compiles models to executables and runs them as a user would.

use crate::reference::Prompt;
use llmc::compile::compile;
use llmc::options::{Activations, BackendName, Kv, Options};
use llmc::progress::Progress;
use llmc_models::TensorFile;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

/// The code generators that are built in.
pub const BACKENDS: &[BackendName] = &[
    #[cfg(feature = "llvm")]
    BackendName::Llvm,
    BackendName::Cranelift,
];

/// Defaults for a model and a code generator.
pub fn defaults(model: &Path, backend: BackendName) -> Options {
    Options { backend: Some(backend), ..Options::new(model) }
}

/// Everything in f32: what is compared with the reference.
pub fn exact(model: &Path, backend: BackendName) -> Options {
    Options { activations: Activations::F32, kv: Kv::F32, ..defaults(model, backend) }
}

/// An executable in a folder for temporary files.
#[derive(Debug)]
pub struct Artifact {
    path: PathBuf,
}

impl Artifact {
    /// Compiles into `folder/name`. Panics with the error if that fails.
    pub fn compile(options: &Options, folder: &Path, name: &str) -> Artifact {
        let path = folder.join(name);
        compile(options, &path, &Progress::Quiet).unwrap_or_else(|e| panic!("{name}: {e}"));
        Artifact { path }
    }

    /// What a command prints. Panics with its complaint if it fails.
    pub fn run(&self, args: &[&str]) -> String {
        let name = self.path.display();
        let output = self.output(args).unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {args:?}: {}\n{complaint}", output.status);
        String::from_utf8(output.stdout).expect("output is text")
    }

    /// Runs a command. A child that another test is just forking may still hold the file open for
    /// writing until it has started its own program: then the file is busy for a moment.
    fn output(&self, args: &[&str]) -> std::io::Result<Output> {
        for _ in 0..100 {
            match Command::new(&self.path).args(args).env_clear().output() {
                Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => sleep(Duration::from_millis(20)),
                result => return result,
            }
        }
        Command::new(&self.path).args(args).env_clear().output()
    }

    /// The object that a command prints.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.run(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?} prints {text}: {e}"))
    }

    /// Logits after each token, `[tokens, vocab]`, through the file that `logits -o` writes.
    pub fn logits(&self, tokens: &[i32], args: &[&str]) -> Vec<f32> {
        let file = self.path.with_added_extension(format!("{:?}.safetensors", std::thread::current().id()));
        let name = file.to_str().expect("temporary paths are text");
        self.run(&[&["logits", "--tokens", &list(tokens), "-o", name], args].concat());
        let stored = TensorFile::open(&file).expect("logits are a safetensors file");
        let ids: Vec<i64> = tokens.iter().map(|t| i64::from(*t)).collect();
        assert_eq!(stored.i64s("input_ids").expect("the file has the ids"), ids);
        let (shape, logits) = stored.f32s("logits").expect("the file has logits");
        assert_eq!(shape[0], tokens.len(), "rows");
        std::fs::remove_file(&file).expect("the file was there");
        logits
    }

    /// The tokens that greedy decoding adds to a prompt, end of text ignored.
    pub fn greedy(&self, prompt: &Prompt) -> Vec<i32> {
        let (tokens, n) = (list(&prompt.ids), prompt.greedy.len().to_string());
        let answer = self.json(&["run", "--tokens", &tokens, "--ignore-eos", "-n", &n]);
        let tokens = answer["tokens"].as_array().expect("the answer has tokens");
        tokens.iter().map(|t| t.as_i64().expect("a token is a number") as i32).collect()
    }
}

impl Drop for Artifact {
    fn drop(&mut self) {
        // The folder is temporary: a file left there is no failure.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn list(tokens: &[i32]) -> String {
    tokens.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
