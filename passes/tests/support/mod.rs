//! What the integration tests share: filetests and random values.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod random;

use llmc_ir::parse::parse_block;
use llmc_ir::{Block, DType, Scheme};
use llmc_passes::{Choice, Options, Pruned, Report, TargetFacts, run_block};
use std::path::{Path, PathBuf};

/// The line that stands between the block and what becomes of it.
const SEPARATOR: &str = "// =>\n";

/// One file of `tests/filetests/rewrite`.
pub struct FileTest {
    pub path: PathBuf,
    pub target: String,
    pub rules: Vec<String>,
    /// What each unit may be: `stored` or schemes.
    pub choices: Vec<Choice>,
    /// What is left out: `block` or `columns`.
    pub pruned: Pruned,
    input: String,
    pub expected: String,
}

impl FileTest {
    /// Every file, by name.
    pub fn all() -> Vec<FileTest> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/filetests/rewrite");
        let entries = std::fs::read_dir(&folder).expect("the folder of rewrite tests exists");
        let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("a readable entry").path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "llir"));
        paths.sort();
        assert!(!paths.is_empty(), "no tests in {}", folder.display());
        paths.into_iter().map(FileTest::read).collect()
    }

    /// The file called `name`.
    pub fn named(name: &str) -> FileTest {
        let wanted = format!("{name}.llir");
        FileTest::all().into_iter().find(|f| f.path.ends_with(&wanted)).expect("a file of that name")
    }

    fn read(path: PathBuf) -> FileTest {
        let text = std::fs::read_to_string(&path).expect("a readable test file");
        let (input, expected) = text.split_once(SEPARATOR).unwrap_or((text.as_str(), ""));
        let header = |key: &str| input.lines().find_map(|l| l.strip_prefix("// ")?.strip_prefix(key)).unwrap_or("");
        assert!(input.contains("// test rewrite\n"), "{} is not a rewrite test", path.display());
        let rules = header("rules ").split_whitespace().map(String::from).collect();
        let choices = header("choices ").split_whitespace().map(choice).collect();
        let expected = expected.lines().map(|l| l.strip_prefix("// ").unwrap_or(l).to_owned() + "\n").collect();
        FileTest {
            target: header("target ").trim().into(),
            rules,
            choices,
            pruned: pruned(header("prune ").trim()),
            input: input.trim_end().into(),
            expected,
            path,
        }
    }

    pub fn block(&self) -> Block {
        parse_block(&self.input).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()))
    }

    pub fn options(&self) -> Options {
        let facts = TargetFacts::named(&self.target).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
        Options { choices: self.choices.clone(), ..Options::new(facts) }
    }

    /// Runs all passes on the block.
    pub fn rewrite(&self, options: &Options) -> (Block, Report) {
        run_block(self.block(), options, self.pruned).expect("the block rewrites")
    }

    /// The rewritten block as text.
    pub fn result(&self) -> String {
        self.rewrite(&self.options()).0.to_string()
    }

    pub fn bless(&self, found: &str) {
        let lines: String = found.lines().map(|l| format!("// {l}\n")).collect();
        let text = format!("{}\n\n{SEPARATOR}{lines}", self.input);
        std::fs::write(&self.path, text).expect("a writable test file");
    }
}

/// `stored`, or a scheme whose weights meet 8-bit integers.
fn choice(name: &str) -> Choice {
    match Scheme::from_name(name) {
        _ if name == "stored" => Choice::default(),
        Some(scheme) => Choice { weights: Some(scheme), rows: Some(DType::I8) },
        None => panic!("{name} is no scheme"),
    }
}

fn pruned(name: &str) -> Pruned {
    match name {
        "" => Pruned::default(),
        "block" => Pruned { whole: true, columns: false },
        "columns" => Pruned { whole: false, columns: true },
        other => panic!("{other} cannot be pruned"),
    }
}

/// Names of the ops that run as kernels, in order.
pub fn kernels(block: &Block) -> Vec<String> {
    let nodes = llmc_passes::egraph::cost::kernel_nodes(&block.graph);
    nodes.iter().map(|n| block.graph.op(*n).name().to_owned()).collect()
}
