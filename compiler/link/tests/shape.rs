//! What every artifact is by its ELF file: position-independent, hardened, self-contained, small.

mod support;

use llmc_abi::payload::{ALIGN, SECTION_NAME};
use object::elf;
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{LittleEndian as LE, Object, ObjectSection, ObjectSymbol};
use std::fs;
use support::{Folder, STEP, Source, make, step_object, variant};

fn artifact() -> (Vec<u8>, llmc_link::Report) {
    let folder = Folder::new();
    let report = make(&folder.0.join("model"));
    (fs::read(folder.0.join("model")).expect("readable"), report)
}

#[test]
fn hardened_and_position_independent() {
    let (bytes, report) = artifact();
    let file = ElfFile64::<LE>::parse(&*bytes).expect("an ELF file");
    assert_eq!(file.elf_header().e_type(LE), elf::ET_DYN);
    let segments: Vec<_> = file.elf_program_headers().iter().map(|p| (p.p_type(LE), p.p_flags(LE))).collect();
    let flags = |kind| segments.iter().filter(|s| s.0 == kind).map(|s| s.1).collect::<Vec<_>>();
    assert!(flags(elf::PT_LOAD).iter().all(|f| f & (elf::PF_W | elf::PF_X) != elf::PF_W | elf::PF_X));
    assert_eq!(flags(elf::PT_GNU_STACK), [elf::PF_R | elf::PF_W]);
    assert_eq!(flags(elf::PT_GNU_RELRO).len(), 1);
    assert_eq!(flags(elf::PT_GNU_EH_FRAME).len(), 1);
    let entries = dynamic(&file, &bytes);
    let value = |tag| entries.iter().find(|e| e.0 == tag).map_or(0, |e| e.1);
    assert_ne!(value(elf::DT_FLAGS) & u64::from(elf::DF_BIND_NOW), 0);
    assert_ne!(value(elf::DT_FLAGS_1) & u64::from(elf::DF_1_NOW), 0);
    assert!(!entries.iter().any(|e| [elf::DT_TEXTREL, elf::DT_RUNPATH, elf::DT_RPATH].contains(&e.0)));
    assert_eq!(report.bytes, bytes.len() as u64);
    assert!(report.bytes_without_weights <= 15 << 20, "{report:?}");
}

#[test]
fn needs_the_c_library_of_2_34_at_most() {
    let (bytes, _) = artifact();
    let file = ElfFile64::<LE>::parse(&*bytes).expect("an ELF file");
    let strings = file.section_by_name(".dynstr").expect("dynamic strings").data().expect("readable");
    let text = |at: u64| {
        let bytes = strings[at as usize..].split(|&b| b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let needed: Vec<_> = dynamic(&file, &bytes).iter().filter(|e| e.0 == elf::DT_NEEDED).map(|e| text(e.1)).collect();
    let allowed = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];
    assert!(needed.iter().all(|n| allowed.contains(&n.as_str())), "{needed:?}");
    assert!(needed.iter().any(|n| n == "libc.so.6"), "{needed:?}");
    for version in strings.split(|&b| b == 0).filter_map(|s| s.strip_prefix(b"GLIBC_2.")) {
        let minor = String::from_utf8_lossy(version);
        let minor: u32 = minor.split('.').next().and_then(|n| n.parse().ok()).expect("a number");
        assert!(minor <= 34, "GLIBC_2.{minor}");
    }
    for symbol in file.dynamic_symbols().filter(|s| s.is_undefined() && !s.is_weak()) {
        let versions = file.elf_section_table().versions(LE, &*bytes).expect("readable").expect("present");
        let index = versions.version_index(LE, symbol.index());
        assert!(versions.version(index).expect("valid").is_some(), "{:?} has no version", symbol.name());
    }
}

#[test]
fn the_payload_is_the_last_segment_and_a_section() {
    let (bytes, _) = artifact();
    let file = ElfFile64::<LE>::parse(&*bytes).expect("an ELF file");
    let loads: Vec<_> = file.elf_program_headers().iter().filter(|p| p.p_type(LE) == elf::PT_LOAD).collect();
    let addresses: Vec<_> = loads.iter().map(|p| p.p_vaddr(LE)).collect();
    assert!(addresses.is_sorted(), "{addresses:?}");
    let payload = loads.last().expect("segments");
    assert_eq!(payload.p_flags(LE), elf::PF_R);
    assert_eq!((payload.p_vaddr(LE) % ALIGN, payload.p_offset(LE) % ALIGN), (0, 0));
    let section = file.section_by_name(SECTION_NAME).expect("the payload's section");
    assert_eq!(section.address(), payload.p_vaddr(LE));
    assert_eq!(section.file_range(), Some((payload.p_offset(LE), payload.p_filesz(LE))));
    assert!(bytes[payload.p_offset(LE) as usize..].starts_with(&llmc_abi::payload::MAGIC));
    let weights = Source::new().weights;
    let end = (payload.p_offset(LE) + payload.p_filesz(LE)) as usize;
    assert!(bytes[..end].ends_with(&weights));
    assert_eq!((end - weights.len()) as u64 % ALIGN, 0);
}

#[test]
fn tools_see_the_names_of_kernels() {
    // The runtime calls the steps through their table, which keeps them and nothing else.
    let folder = Folder::new();
    let out = folder.0.join("model");
    let objects = [step_object(STEP), step_object("unused_kernel")];
    llmc_link::executable(&objects, &[variant()], &mut Source::new(), &out, None).expect("linked");
    let bytes = fs::read(out).expect("readable");
    let file = ElfFile64::<LE>::parse(&*bytes).expect("an ELF file");
    let step = file.symbols().find(|s| s.name() == Ok(STEP)).expect("the step's symbol");
    assert_eq!((step.size(), step.kind()), (64, object::SymbolKind::Text));
    assert!(file.dynamic_symbols().all(|s| s.name() != Ok(STEP)), "nothing is exported");
}

#[test]
fn two_links_give_the_same_bytes_on_any_number_of_threads() {
    let link = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(artifact).0
    };
    let first = link(1);
    for threads in [1, 2, 5] {
        assert!(link(threads) == first, "{threads} threads");
    }
}

fn dynamic(file: &ElfFile64<'_, LE>, bytes: &[u8]) -> Vec<(u32, u64)> {
    let sections = file.elf_header().sections(LE, bytes).expect("sections");
    let table = sections.iter().find_map(|s| s.dynamic(LE, bytes).expect("readable")).expect("a dynamic section");
    table.0.iter().map(|d| (d.d_tag(LE) as u32, d.d_val(LE))).collect()
}
