//! Conversions.

use super::Lower;
use crate::error::Failure;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, InstructionOpcode};
use llmc_kernels::kir::{Cast, Elem, Ty};

impl<'c> Lower<'c, '_> {
    pub(super) fn cast(
        &self,
        cast: Cast,
        a: BasicValueEnum<'c>,
        from: Ty,
        to: Ty,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        use InstructionOpcode as I;
        let opcode = match cast {
            Cast::SExt => I::SExt,
            Cast::ZExt => I::ZExt,
            Cast::Trunc => I::Trunc,
            Cast::IntToFloat => I::SIToFP,
            Cast::FloatToInt => I::FPToSI,
            Cast::FExt => I::FPExt,
            Cast::FTrunc => I::FPTrunc,
            Cast::Bitcast => match (from.elem, to.elem) {
                (Elem::Ptr, Elem::Ptr) => return Ok(a),
                (Elem::Ptr, _) => I::PtrToInt,
                (_, Elem::Ptr) => I::IntToPtr,
                _ => I::BitCast,
            },
            Cast::F16ToF32 => {
                let half = self.convert(I::BitCast, a, self.halves(from.lanes))?;
                return self.convert(I::FPExt, half, self.ty(to));
            }
            Cast::F32ToF16 => {
                let half = self.convert(I::FPTrunc, a, self.halves(from.lanes))?;
                return self.convert(I::BitCast, half, self.ty(to));
            }
        };
        self.convert(opcode, a, self.ty(to))
    }

    fn convert(
        &self,
        opcode: InstructionOpcode,
        a: BasicValueEnum<'c>,
        to: BasicTypeEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        Ok(self.builder.build_cast(opcode, a, to, "")?)
    }
}
