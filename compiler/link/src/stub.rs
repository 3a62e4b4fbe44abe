//! Stub shared libraries: names, versions and types of symbols, no code.
//!
//! A linker reads of a shared library its soname, its dynamic symbols and their versions (System V
//! gABI, chapter 5; Linux Standard Base, symbol versioning). Stubs have these and nothing else, so
//! that no library of the machine that compiles takes part.

use crate::symbols::{Library, Symbol};
use object::elf;
use object::write::StringId;
use object::write::elf::{FileHeader, SectionHeader, Sym, Verdef, Writer};
use object::{Endianness, write};

/// What the first of the writer's two passes decides.
struct Layout {
    /// The section that the symbols claim to lie in, and its name.
    text: write::elf::SectionIndex,
    text_name: StringId,
    soname: StringId,
    versions: Vec<StringId>,
    symbols: Vec<StringId>,
}

/// `DT_SONAME` and `DT_NULL`.
const DYNAMIC_ENTRIES: usize = 2;

/// The stub of `library`.
pub(crate) fn stub(library: &Library<'_>) -> write::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    let layout = reserve(&mut writer, library);
    write_parts(&mut writer, library, &layout)?;
    Ok(bytes)
}

fn symbols<'a>(library: &Library<'a>) -> impl Iterator<Item = (usize, Symbol<'a>)> {
    let versions = library.versions.iter().enumerate();
    versions.flat_map(|(i, v)| v.symbols.iter().map(move |s| (i, *s)))
}

fn reserve<'a>(w: &mut Writer<'a>, library: &Library<'a>) -> Layout {
    w.reserve_file_header();
    w.reserve_null_section_index();
    let text_name = w.add_section_name(b".text");
    let text = w.reserve_section_index();
    w.reserve_dynsym_section_index();
    w.reserve_dynstr_section_index();
    w.reserve_gnu_versym_section_index();
    w.reserve_gnu_verdef_section_index();
    w.reserve_dynamic_section_index();
    w.reserve_shstrtab_section_index();
    let soname = w.add_dynamic_string(library.soname.as_bytes());
    let versions: Vec<_> = library.versions.iter().map(|v| w.add_dynamic_string(v.name.as_bytes())).collect();
    w.reserve_null_dynamic_symbol_index();
    let names = symbols(library).map(|(_, symbol)| {
        w.reserve_dynamic_symbol_index();
        w.add_dynamic_string(symbol.name.as_bytes())
    });
    let names = names.collect();
    w.reserve_dynsym();
    w.reserve_dynstr();
    w.reserve_gnu_versym();
    w.reserve_gnu_verdef(1 + versions.len(), 1 + versions.len());
    w.reserve_dynamic(DYNAMIC_ENTRIES);
    w.reserve_shstrtab();
    w.reserve_section_headers();
    Layout { text, text_name, soname, versions, symbols: names }
}

fn write_parts(w: &mut Writer<'_>, library: &Library<'_>, layout: &Layout) -> write::Result<()> {
    w.write_file_header(&FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_DYN,
        e_machine: elf::EM_X86_64,
        e_entry: 0,
        e_flags: 0,
    })?;
    w.write_null_dynamic_symbol();
    for ((_, symbol), &name) in symbols(library).zip(&layout.symbols) {
        w.write_dynamic_symbol(&dynamic_symbol(symbol, name, layout.text));
    }
    w.write_dynstr();
    w.write_null_gnu_versym();
    for (version, _) in symbols(library) {
        w.write_gnu_versym(version as u16 + 2);
    }
    write_versions(w, layout);
    w.write_align_dynamic();
    w.write_dynamic_string(elf::DT_SONAME, layout.soname);
    w.write_dynamic(elf::DT_NULL, 0);
    w.write_shstrtab();
    write_section_headers(w, layout);
    Ok(())
}

fn dynamic_symbol(symbol: Symbol<'_>, name: StringId, text: write::elf::SectionIndex) -> Sym {
    let kind = if symbol.object.is_some() { elf::STT_OBJECT } else { elf::STT_FUNC };
    Sym {
        name: Some(name),
        section: Some(text),
        st_info: elf::STB_GLOBAL << 4 | kind,
        st_other: elf::STV_DEFAULT,
        st_shndx: 0,
        st_value: 0,
        st_size: symbol.object.unwrap_or(1),
    }
}

/// Version 1 is the library itself, by convention; the symbols' versions follow.
fn write_versions(w: &mut Writer<'_>, layout: &Layout) {
    w.write_align_gnu_verdef();
    let base = [(elf::VER_FLG_BASE, layout.soname)].into_iter();
    let others = layout.versions.iter().map(|&name| (0, name));
    for (i, (flags, name)) in base.chain(others).enumerate() {
        let index = i as u16 + 1;
        w.write_gnu_verdef(&Verdef { version: elf::VER_DEF_CURRENT, flags, index, aux_count: 1, name });
    }
}

fn write_section_headers(w: &mut Writer<'_>, layout: &Layout) {
    w.write_null_section_header();
    w.write_section_header(&SectionHeader {
        name: Some(layout.text_name),
        sh_type: elf::SHT_NOBITS,
        sh_flags: u64::from(elf::SHF_ALLOC | elf::SHF_EXECINSTR),
        sh_addr: 0,
        sh_offset: 0,
        sh_size: 1,
        sh_link: 0,
        sh_info: 0,
        sh_addralign: 1,
        sh_entsize: 0,
    });
    w.write_dynsym_section_header(0, 1);
    w.write_dynstr_section_header(0);
    w.write_gnu_versym_section_header(0);
    w.write_gnu_verdef_section_header(0);
    w.write_dynamic_section_header(0);
    w.write_shstrtab_section_header();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols;
    use object::read::elf::ElfFile64;
    use object::{Object, ObjectSymbol};

    #[test]
    fn a_stub_reads_back_as_the_table_has_it() {
        let table = "libx.so.1 X_1\n  f\n  data:8\nlibx.so.1 X_2\n  g\n";
        let library = &symbols::parse(table).expect("well-formed")[0];
        let bytes = stub(library).expect("written");
        let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
        let versions = file.elf_section_table().versions(Endianness::Little, &*bytes).expect("versions").expect("some");
        let found: Vec<_> = file
            .dynamic_symbols()
            .map(|s| {
                let index = versions.version_index(Endianness::Little, s.index());
                let version = versions.version(index).expect("valid").expect("defined");
                (s.name().expect("text").to_owned(), String::from_utf8_lossy(version.name()).into_owned(), s.size())
            })
            .collect();
        let expect = [("f", "X_1", 1), ("data", "X_1", 8), ("g", "X_2", 1)];
        assert_eq!(found, expect.map(|(n, v, s)| (n.to_owned(), v.to_owned(), s)));
    }
}
