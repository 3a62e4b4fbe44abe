//! The object that llmc itself adds to a link: the table of compiled steps and a placeholder note.

use crate::VariantSpec;
use llmc_abi::step::{VARIANTS_LEN_SYMBOL, VARIANTS_SYMBOL};
use object::write::{Object, Relocation, SectionId, StandardSection, Symbol, SymbolId, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};
use object::{RelocationEncoding, RelocationFlags, RelocationKind, SymbolFlags, SymbolKind, SymbolScope, elf, write};

/// Name of the section of the placeholder note. Its program header becomes the payload's.
pub(crate) const NOTE_SECTION: &str = ".note.llmc";
/// Bytes of a [`llmc_abi::Variant`]: step, features, target.
const VARIANT_BYTES: u64 = 24;

/// The object file that defines the table of `variants`.
pub(crate) fn table_object(variants: &[VariantSpec]) -> write::Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    add_variants(&mut object, variants)?;
    add_note(&mut object);
    // An object without this section asks for an executable stack.
    object.add_section(Vec::new(), b".note.GNU-stack".to_vec(), SectionKind::Other);
    object.write()
}

fn add_variants(object: &mut Object<'_>, variants: &[VariantSpec]) -> write::Result<()> {
    let table = object.section_id(StandardSection::ReadOnlyDataWithRel);
    let constants = object.section_id(StandardSection::ReadOnlyData);
    let size = VARIANT_BYTES * variants.len() as u64;
    let symbol = define(object, VARIANTS_SYMBOL, size);
    let base = object.add_symbol_data(symbol, table, &table_bytes(variants), 8);
    for (at, variant) in (base..).step_by(VARIANT_BYTES as usize).zip(variants) {
        let step = declare(object, &variant.step_symbol);
        point(object, table, at, step, 0)?;
        let name = [variant.target.as_bytes(), &[0]].concat();
        let offset = object.append_section_data(constants, &name, 1);
        let section = object.section_symbol(constants);
        point(object, table, at + 16, section, offset as i64)?;
    }
    let count = define(object, VARIANTS_LEN_SYMBOL, 8);
    object.add_symbol_data(count, constants, &(variants.len() as u64).to_le_bytes(), 8);
    Ok(())
}

/// The table's bytes, zero where a relocation puts an address.
fn table_bytes(variants: &[VariantSpec]) -> Vec<u8> {
    variants.iter().flat_map(|v| [0, v.features, 0]).flat_map(u64::to_le_bytes).collect()
}

/// Name, type 1 and no description, in the layout of `Elf64_Nhdr`.
fn add_note(object: &mut Object<'_>) {
    let note = object.add_section(Vec::new(), NOTE_SECTION.into(), SectionKind::Note);
    object.section_mut(note).flags = object::SectionFlags::Elf { sh_flags: u64::from(elf::SHF_ALLOC) };
    let words: [u32; 3] = [5, 0, 1];
    let bytes = [&words.map(u32::to_le_bytes).concat()[..], b"llmc\0\0\0\0"].concat();
    object.append_section_data(note, &bytes, 4);
}

fn define(object: &mut Object<'_>, name: &str, size: u64) -> SymbolId {
    add_symbol(object, name, size, SymbolKind::Data, SymbolScope::Linkage)
}

fn declare(object: &mut Object<'_>, name: &str) -> SymbolId {
    add_symbol(object, name, 0, SymbolKind::Text, SymbolScope::Unknown)
}

fn add_symbol(object: &mut Object<'_>, name: &str, size: u64, kind: SymbolKind, scope: SymbolScope) -> SymbolId {
    object.add_symbol(Symbol {
        name: name.into(),
        value: 0,
        size,
        kind,
        scope,
        weak: false,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    })
}

/// Makes the eight bytes at `offset` the address of `symbol + addend`.
fn point(object: &mut Object<'_>, section: SectionId, offset: u64, symbol: SymbolId, addend: i64) -> write::Result<()> {
    let flags =
        RelocationFlags::Generic { kind: RelocationKind::Absolute, encoding: RelocationEncoding::Generic, size: 64 };
    object.add_relocation(section, Relocation { offset, symbol, addend, flags })
}
