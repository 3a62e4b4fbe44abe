//! Loads compiled objects into this process and runs them: the smallest linker that does.
//!
//! All sections with bytes in memory go into one mapping, which becomes readable and executable
//! after relocation. The barrier is this module's own; no other symbol may be undefined.

use llmc_abi::step::BARRIER_SYMBOL;
use llmc_kernels::Object;
use object::elf;
use object::{File, Object as _, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};
use std::collections::BTreeMap;
use std::sync::{Arc, Barrier, Mutex};

/// A step's signature on raw memory.
type Entry = unsafe extern "C" fn(args: *const u8, worker: i64, workers: i64);

/// Bytes of `jmp *[rip + 0]` and the address it reads.
const STUB: [u8; 6] = [0xff, 0x25, 0, 0, 0, 0];
const STUB_BYTES: usize = 16;
/// The address in a stub serves as its entry of the global offset table.
const STUB_ADDRESS: usize = 6;

/// Code in memory that can run.
pub struct Loaded {
    mapping: *mut u8,
    bytes: usize,
    symbols: BTreeMap<String, usize>,
}

// SAFETY: the mapping is only read and executed once it is loaded.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Address of a global symbol.
    pub fn symbol(&self, name: &str) -> *const u8 {
        let offset = self.symbols.get(name).unwrap_or_else(|| panic!("no symbol {name} in the objects"));
        // SAFETY: symbols lie inside the mapping.
        unsafe { self.mapping.add(*offset) }
    }

    /// Runs `name(args, worker, workers)` in as many threads as workers.
    ///
    /// # Safety
    /// The code may do whatever it was compiled to do with `args`.
    pub unsafe fn run(&self, name: &str, args: *const u8, workers: usize) {
        // SAFETY: the symbol is a function of this signature.
        let entry: Entry = unsafe { std::mem::transmute(self.symbol(name)) };
        let args = args as usize;
        std::thread::scope(|s| {
            for worker in 0..workers {
                // SAFETY: the caller's promise.
                s.spawn(move || unsafe { entry(args as *const u8, worker as i64, workers as i64) });
            }
        });
        BARRIERS.lock().expect("no worker panics in a barrier").remove(&args);
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: mapped by `load` with this length.
        unsafe { libc::munmap(self.mapping.cast(), self.bytes) };
    }
}

/// One barrier for each set of workers, which share `args`.
static BARRIERS: Mutex<BTreeMap<usize, Arc<Barrier>>> = Mutex::new(BTreeMap::new());

extern "C" fn barrier(args: *const u8, _worker: i64, workers: i64, _phase: i64) {
    let barrier = {
        let mut all = BARRIERS.lock().expect("no worker panics in a barrier");
        all.entry(args as usize).or_insert_with(|| Arc::new(Barrier::new(workers as usize))).clone()
    };
    barrier.wait();
}

/// Links objects and makes them executable. Panics with the reason if they cannot be.
pub fn load(objects: &[Object]) -> Loaded {
    let files: Vec<File> = objects.iter().map(|o| File::parse(&*o.bytes).expect("an ELF object")).collect();
    let mut image = Image::default();
    for (index, file) in files.iter().enumerate() {
        image.place(index, file);
    }
    let stub = image.reserve(STUB_BYTES as u64, 16);
    image.bytes[stub..stub + STUB.len()].copy_from_slice(&STUB);
    let barrier = (barrier as *const () as u64).to_le_bytes();
    image.bytes[stub + STUB_ADDRESS..][..8].copy_from_slice(&barrier);
    image.symbols.insert(BARRIER_SYMBOL.into(), stub);
    let mapping = map(image.bytes.len());
    for (index, file) in files.iter().enumerate() {
        image.relocate(index, file, stub, mapping as u64);
    }
    image.symbols.remove(BARRIER_SYMBOL);
    // SAFETY: the mapping is writable and as long as the image; nothing else knows it yet.
    let sealed = unsafe {
        std::ptr::copy_nonoverlapping(image.bytes.as_ptr(), mapping, image.bytes.len());
        libc::mprotect(mapping.cast(), image.bytes.len(), libc::PROT_READ | libc::PROT_EXEC)
    };
    assert_eq!(sealed, 0, "mprotect: {}", std::io::Error::last_os_error());
    Loaded { mapping, bytes: image.bytes.len(), symbols: image.symbols }
}

fn map(bytes: usize) -> *mut u8 {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping.
    let mapping = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    assert_ne!(mapping, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    mapping.cast()
}

/// The bytes to be mapped and where things are in them.
#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
    sections: BTreeMap<(usize, usize), usize>,
    symbols: BTreeMap<String, usize>,
}

impl Image {
    fn reserve(&mut self, bytes: u64, align: u64) -> usize {
        let start = self.bytes.len().next_multiple_of(align.max(1) as usize);
        self.bytes.resize(start + bytes as usize, 0);
        start
    }

    /// Copies an object's sections and notes its symbols.
    fn place(&mut self, index: usize, file: &File) {
        for section in file.sections().filter(in_memory) {
            let name = section.name().expect("a section's name is text");
            assert!(!writable(&section), "{name} is writable: compiled code has no state");
            let start = self.reserve(section.size(), section.align());
            let data = section.data().expect("a section's bytes are in the file");
            self.bytes[start..start + data.len()].copy_from_slice(data);
            self.sections.insert((index, section.index().0), start);
        }
        for symbol in file.symbols().filter(|s| s.is_global() && s.is_definition()) {
            let section = symbol.section_index().expect("a definition is in a section");
            let at = self.sections[&(index, section.0)] + symbol.address() as usize;
            let name = symbol.name().expect("a symbol's name is text").to_string();
            assert!(self.symbols.insert(name.clone(), at).is_none(), "{name} is defined twice");
        }
    }

    fn relocate(&mut self, index: usize, file: &File, stub: usize, base: u64) {
        for section in file.sections().filter(in_memory) {
            let start = self.sections[&(index, section.index().0)];
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(symbol) = relocation.target() else {
                    panic!("relocation against {:?}", relocation.target())
                };
                let symbol = file.symbol_by_index(symbol).expect("a relocation's symbol is in the table");
                let RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("not ELF") };
                let target = self.resolve(index, &symbol);
                // Only the barrier is reached through the offset table.
                let slot = stub + STUB_ADDRESS;
                let place = start + offset as usize;
                self.apply(r_type, place, (target, slot), relocation.addend(), base);
            }
        }
    }

    fn resolve(&self, index: usize, symbol: &object::Symbol) -> usize {
        match symbol.section_index() {
            Some(section) => self.sections[&(index, section.0)] + symbol.address() as usize,
            None => {
                let name = symbol.name().expect("a symbol's name is text");
                *self.symbols.get(name).unwrap_or_else(|| panic!("{name} is undefined"))
            }
        }
    }

    fn apply(&mut self, kind: u32, place: usize, (target, slot): (usize, usize), addend: i64, base: u64) {
        let relative = |to: usize| (to as i64 + addend - place as i64) as i32;
        let four = match kind {
            elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => relative(target),
            elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => relative(slot),
            elf::R_X86_64_64 => {
                let address = base.wrapping_add(target as u64).wrapping_add(addend as u64);
                self.bytes[place..place + 8].copy_from_slice(&address.to_le_bytes());
                return;
            }
            other => panic!("relocation type {other} is not supported"),
        };
        self.bytes[place..place + 4].copy_from_slice(&four.to_le_bytes());
    }
}

fn flags<'a>(section: &impl ObjectSection<'a>) -> u64 {
    match section.flags() {
        object::SectionFlags::Elf { sh_flags } => sh_flags,
        _ => 0,
    }
}

fn in_memory<'a>(section: &impl ObjectSection<'a>) -> bool {
    flags(section) & u64::from(elf::SHF_ALLOC) != 0
}

fn writable<'a>(section: &impl ObjectSection<'a>) -> bool {
    flags(section) & u64::from(elf::SHF_WRITE) != 0
}

/// Symbols that the objects need and do not define, sorted.
pub fn undefined(objects: &[Object]) -> Vec<String> {
    let files: Vec<File> = objects.iter().map(|o| File::parse(&*o.bytes).expect("an ELF object")).collect();
    let names = |want: fn(&object::Symbol) -> bool| -> std::collections::BTreeSet<String> {
        let all = files.iter().flat_map(|f| f.symbols().filter(want).map(|s| s.name().unwrap_or_default().to_string()));
        all.filter(|n| !n.is_empty()).collect()
    };
    let defined = names(|s| s.is_definition());
    names(|s| s.is_undefined()).difference(&defined).cloned().collect()
}
