//! Addresses, loads, stores, prefetches and frame memory.

use super::Lower;
use crate::error::Failure;
use inkwell::AtomicOrdering;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValue, BasicValueEnum, InstructionValue, IntValue, MetadataValue, PointerValue};
use llmc_kernels::kir::{CacheLevel, Hint, Ty};

/// Arguments of `llvm.prefetch`: a read, of data.
const PREFETCH_READ: u64 = 0;
const PREFETCH_DATA: u64 = 1;

impl<'c> Lower<'c, '_> {
    /// `ptr + bytes`.
    pub(super) fn offset(
        &self,
        ptr: BasicValueEnum<'c>,
        bytes: BasicValueEnum<'c>,
    ) -> Result<PointerValue<'c>, Failure> {
        self.step_bytes(ptr.into_pointer_value(), bytes.into_int_value())
    }

    fn step_bytes(&self, ptr: PointerValue<'c>, bytes: IntValue<'c>) -> Result<PointerValue<'c>, Failure> {
        // SAFETY: one index into a scalar type; without `inbounds` any address may come out.
        Ok(unsafe { self.builder.build_gep(self.context.i8_type(), ptr, &[bytes], "") }?)
    }

    /// `ptr + offset` of a memory access.
    pub fn address(&self, ptr: BasicValueEnum<'c>, offset: i32) -> Result<PointerValue<'c>, Failure> {
        let ptr = ptr.into_pointer_value();
        if offset == 0 {
            return Ok(ptr);
        }
        let offset = self.context.i64_type().const_int(i64::from(offset) as u64, true);
        self.step_bytes(ptr, offset)
    }

    pub(super) fn load(
        &self,
        ptr: BasicValueEnum<'c>,
        offset: i32,
        align: u32,
        ty: Ty,
        hint: Hint,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        self.load_as(ptr, offset, align, self.ty(ty), hint)
    }

    /// A load of a type of LLVM's.
    pub fn load_as(
        &self,
        ptr: BasicValueEnum<'c>,
        offset: i32,
        align: u32,
        ty: BasicTypeEnum<'c>,
        hint: Hint,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        let loaded = self.builder.build_load(ty, self.address(ptr, offset)?, "")?;
        let inst = loaded.as_instruction_value().ok_or("a load is an instruction")?;
        inst.set_alignment(align).map_err(|e| Failure::from(e.to_string()))?;
        if hint == Hint::Constant {
            let node = self.context.metadata_node(&[]);
            self.annotate(inst, "invariant.load", node)?;
        }
        Ok(loaded)
    }

    fn annotate(&self, inst: InstructionValue<'c>, kind: &str, node: MetadataValue<'c>) -> Result<(), Failure> {
        inst.set_metadata(node, self.context.get_kind_id(kind)).map_err(|e| Failure::from(e.to_string()))
    }

    pub(super) fn store(
        &self,
        ptr: BasicValueEnum<'c>,
        offset: i32,
        value: BasicValueEnum<'c>,
        align: u32,
        hint: Hint,
    ) -> Result<(), Failure> {
        let inst = self.builder.build_store(self.address(ptr, offset)?, value)?;
        inst.set_alignment(align).map_err(|e| Failure::from(e.to_string()))?;
        if hint == Hint::Stream {
            let one = self.context.i32_type().const_int(1, false);
            let node = self.context.metadata_node(&[one.into()]);
            self.annotate(inst, "nontemporal", node)?;
        }
        Ok(())
    }

    /// Non-temporal stores are not ordered by what orders other stores.
    pub(super) fn flush_streams(&self) -> Result<(), Failure> {
        if self.streams {
            self.builder.build_fence(AtomicOrdering::SequentiallyConsistent, false, "")?;
        }
        Ok(())
    }

    pub(super) fn prefetch(&self, ptr: BasicValueEnum<'c>, offset: i32, to: CacheLevel) -> Result<(), Failure> {
        let address = self.address(ptr, offset)?;
        let locality = match to {
            CacheLevel::L1 => 3,
            CacheLevel::L2 => 2,
        };
        let k = |v| self.context.i32_type().const_int(v, false).into();
        let args = [address.into(), k(PREFETCH_READ), k(locality), k(PREFETCH_DATA)];
        let callee = self.declaration("llvm.prefetch", &[address.get_type().into()])?;
        self.call_value(callee, &args)?;
        Ok(())
    }

    /// Frame memory is allocated in the entry block, wherever it is asked for.
    pub fn stack(&self, bytes: u32) -> Result<BasicValueEnum<'c>, Failure> {
        let here = self.builder.get_insert_block().ok_or("the builder is in a block")?;
        let entry = self.function.get_first_basic_block().ok_or("the function has a block")?;
        match entry.get_first_instruction() {
            Some(first) => self.builder.position_before(&first),
            None => self.builder.position_at_end(entry),
        }
        let slot = self.builder.build_alloca(self.context.i8_type().array_type(bytes), "")?;
        let inst = slot.as_instruction_value().ok_or("an alloca is an instruction")?;
        inst.set_alignment(64).map_err(|e| Failure::from(e.to_string()))?;
        self.builder.position_at_end(here);
        Ok(slot.into())
    }
}
