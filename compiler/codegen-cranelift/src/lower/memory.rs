//! Loads, stores and frame memory.

use super::{Lower, repr};
use crate::error::Failure;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, Type, Value, types};
use llmc_kernels::kir::Ty;

/// Alignment of frame memory; Cranelift's frames have 16.
const STACK_ALIGN: u32 = 64;

impl Lower<'_> {
    pub(super) fn load(&mut self, ptr: Value, offset: i32, align: u32, ty: Ty) -> Value {
        let flags = flags(ty, align);
        if ty.lanes == 1 || ty.bytes() as usize == repr::BYTES {
            return self.b.ins().load(repr::of(ty), flags, ptr, offset);
        }
        let int = self.b.ins().load(short(ty), flags, ptr, offset);
        self.low_bits(int, repr::of(ty))
    }

    pub(super) fn store(&mut self, ptr: Value, offset: i32, value: Value, align: u32, ty: Ty) {
        let value = if ty.lanes == 1 || ty.bytes() as usize == repr::BYTES {
            value
        } else {
            let register = self.reinterpret(value, repr::register(short(ty)));
            self.b.ins().extractlane(register, 0)
        };
        self.b.ins().store(flags(ty, align), value, ptr, offset);
    }

    pub(super) fn stack(&mut self, bytes: u32) -> Result<Value, Failure> {
        let size = bytes.checked_add(STACK_ALIGN - 1);
        let size = size.ok_or_else(|| Failure::from(format!("{bytes} bytes of frame memory are too many")))?;
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, size, 4);
        let slot = self.b.create_sized_stack_slot(slot);
        let start = self.b.ins().stack_addr(types::I64, slot, 0);
        let end = self.b.ins().iadd_imm_u(start, i64::from(STACK_ALIGN) - 1);
        Ok(self.b.ins().band_imm_s(end, -i64::from(STACK_ALIGN)))
    }
}

/// The integer as long as a short vector.
fn short(ty: Ty) -> Type {
    Type::int_with_byte_size(ty.bytes() as u16).expect("a vector of 2, 4 or 8 bytes")
}

fn flags(ty: Ty, align: u32) -> MemFlagsData {
    let flags = MemFlagsData::new().with_notrap();
    if align >= ty.bytes() { flags.with_aligned() } else { flags }
}
