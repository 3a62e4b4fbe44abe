//! Loads compiled objects into this process and runs them: the smallest linker that does.
//!
//! All sections with bytes in memory go into one mapping, which becomes readable and executable after
//! relocation. The barrier is this crate's own; no other symbol may be undefined. Only for x86-64 ELF.

mod image;
mod region;

pub use region::Region;

use image::Image;
use llmc_kernels::Object;
use object::{File, Object as _, ObjectSymbol};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Barrier, Mutex, PoisonError, RwLock};
use thiserror::Error;

/// Why objects cannot be loaded, or a symbol not be run.
#[derive(Debug, Error)]
pub enum Error {
    /// The object is not what a code generator of llmc makes.
    #[error("loading compiled code: {0}")]
    Object(String),
    /// The system refused memory, or a thread.
    #[error("memory or a thread for compiled code: {0}")]
    System(#[from] std::io::Error),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A step's signature on raw memory.
type Entry = unsafe extern "C" fn(args: *const u8, worker: i64, workers: i64);

/// Code in memory that can run.
#[derive(Debug)]
pub struct Loaded {
    mapping: Region,
    symbols: BTreeMap<String, usize>,
}

impl Loaded {
    /// Address of a global symbol.
    ///
    /// # Errors
    /// If the objects have no such symbol.
    pub fn symbol(&self, name: &str) -> Result<*const u8> {
        let offset = self.symbols.get(name).ok_or_else(|| Error::Object(format!("no symbol {name}")))?;
        Ok(self.mapping.base().wrapping_add(*offset).cast_const())
    }

    /// Runs `name(args, worker, workers)` in as many threads as workers.
    ///
    /// # Errors
    /// If the objects have no such symbol, or the system has not so many threads: then none runs it.
    ///
    /// # Safety
    /// The symbol must be a step, and the code may do whatever it was compiled to do with `args`.
    pub unsafe fn run(&self, name: &str, args: *const u8, workers: usize) -> Result<()> {
        // SAFETY: the caller says that the symbol is a function of this signature.
        let entry: Entry = unsafe { std::mem::transmute(self.symbol(name)?) };
        let args = args as usize;
        // Workers wait for each other in the step, so none begins before all are there.
        let lock = RwLock::new(false);
        let begin = &lock;
        let mut gate = begin.write().unwrap_or_else(PoisonError::into_inner);
        let started = std::thread::scope(|s| {
            let started: std::io::Result<()> = (0..workers).try_for_each(|worker| {
                let work = move || {
                    if *begin.read().unwrap_or_else(PoisonError::into_inner) {
                        // SAFETY: the caller's promise.
                        unsafe { entry(args as *const u8, worker as i64, workers as i64) }
                    }
                };
                std::thread::Builder::new().spawn_scoped(s, work).map(drop)
            });
            *gate = started.is_ok();
            drop(gate);
            started
        });
        barriers().remove(&args);
        Ok(started?)
    }
}

type Barriers = BTreeMap<usize, Arc<Barrier>>;

/// One barrier for each set of workers, which share `args`.
static BARRIERS: Mutex<Barriers> = Mutex::new(Barriers::new());

fn barriers() -> std::sync::MutexGuard<'static, Barriers> {
    BARRIERS.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn barrier(args: *const u8, _worker: i64, workers: i64, _phase: i64) {
    let new = || Arc::new(Barrier::new(workers as usize));
    let barrier = barriers().entry(args as usize).or_insert_with(new).clone();
    barrier.wait();
}

/// Links objects and makes them executable.
///
/// # Errors
/// If an object is not what a code generator of llmc makes, or memory is refused.
pub fn load(objects: &[Object]) -> Result<Loaded> {
    let files = parse(objects)?;
    let mut image = Image::default();
    for (index, file) in files.iter().enumerate() {
        image.place(index, file)?;
    }
    let stub = image.barrier(barrier as *const () as u64);
    let mut mapping = Region::new(image.bytes.len())?;
    for (index, file) in files.iter().enumerate() {
        image.relocate(index, file, stub, mapping.base() as u64)?;
    }
    mapping.slice(0, image.bytes.len()).copy_from_slice(&image.bytes);
    mapping.make_executable()?;
    Ok(Loaded { mapping, symbols: image.symbols })
}

fn parse(objects: &[Object]) -> Result<Vec<File<'_>>> {
    let open = |o| File::parse(o).map_err(|e| Error::Object(e.to_string()));
    objects.iter().map(|o| open(&*o.bytes)).collect()
}

/// Symbols that the objects need and do not define, sorted.
///
/// # Errors
/// If an object is not ELF.
pub fn undefined(objects: &[Object]) -> Result<Vec<String>> {
    let files = parse(objects)?;
    let names = |want: fn(&object::Symbol) -> bool| -> BTreeSet<String> {
        let all = files.iter().flat_map(|f| f.symbols().filter(want).map(|s| s.name().unwrap_or_default().to_string()));
        all.filter(|n| !n.is_empty()).collect()
    };
    let defined = names(|s| s.is_definition());
    Ok(names(|s| s.is_undefined()).difference(&defined).cloned().collect())
}
