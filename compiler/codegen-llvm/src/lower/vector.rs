//! Constants, splats, lanes and shuffles.

use super::Lower;
use crate::error::Failure;
use inkwell::types::VectorType;
use inkwell::values::BasicValueEnum;
use llmc_kernels::kir::Ty;

impl<'c> Lower<'c, '_> {
    pub(super) fn int(&self, ty: Ty, k: i64) -> BasicValueEnum<'c> {
        let scalar = self.ty(Ty::scalar(ty.elem)).into_int_type();
        // Shorter types take the lower bits, as KIR does.
        let mask = if ty.elem.bits() == 64 { u64::MAX } else { (1 << ty.elem.bits()) - 1 };
        constant(scalar.const_int(k as u64 & mask, false).into(), ty.lanes)
    }

    pub(super) fn float(&self, ty: Ty, k: f64) -> BasicValueEnum<'c> {
        let scalar = self.ty(Ty::scalar(ty.elem)).into_float_type();
        constant(scalar.const_float(k).into(), ty.lanes)
    }

    pub(super) fn splat(&self, a: BasicValueEnum<'c>, lanes: u16) -> Result<BasicValueEnum<'c>, Failure> {
        if lanes == 1 {
            return Ok(a);
        }
        let vector = super::vector_of(a.get_type(), lanes).into_vector_type();
        let zero = self.context.i32_type().const_zero();
        let first = self.builder.build_insert_element(vector.get_poison(), a, zero, "")?;
        let mask = self.context.i32_type().vec_type(lanes.into()).const_zero();
        Ok(self.builder.build_shuffle_vector(first, vector.get_poison(), mask, "")?.into())
    }

    pub(super) fn extract(&self, a: BasicValueEnum<'c>, lane: u16) -> Result<BasicValueEnum<'c>, Failure> {
        let BasicValueEnum::VectorValue(vector) = a else { return Ok(a) };
        let lane = self.context.i32_type().const_int(lane.into(), false);
        Ok(self.builder.build_extract_element(vector, lane, "")?)
    }

    pub(super) fn insert(
        &self,
        a: BasicValueEnum<'c>,
        lane: u16,
        scalar: BasicValueEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        let BasicValueEnum::VectorValue(vector) = a else { return Ok(scalar) };
        let lane = self.context.i32_type().const_int(lane.into(), false);
        Ok(self.builder.build_insert_element(vector, scalar, lane, "")?.into())
    }

    pub(super) fn shuffle(
        &self,
        a: BasicValueEnum<'c>,
        b: BasicValueEnum<'c>,
        lanes: &[u16],
    ) -> Result<BasicValueEnum<'c>, Failure> {
        let index = |lane: &u16| self.context.i32_type().const_int((*lane).into(), false);
        let mask = VectorType::const_vector(&lanes.iter().map(index).collect::<Vec<_>>());
        let shuffled = self.builder.build_shuffle_vector(self.as_vector(a)?, self.as_vector(b)?, mask, "")?.into();
        if lanes.len() == 1 { self.extract(shuffled, 0) } else { Ok(shuffled) }
    }

    /// The lower lanes; lanes beyond the value's own are unspecified.
    pub fn resize(&self, a: BasicValueEnum<'c>, lanes: u16) -> Result<BasicValueEnum<'c>, Failure> {
        let have = self.lanes(a);
        // Past the first vector's lanes the indices pick from the second, which is the first again.
        let picks: Vec<u16> = (0..lanes).map(|lane| lane.min(2 * have - 1)).collect();
        self.shuffle(a, a, &picks)
    }

    /// A scalar as a vector of one lane, which LLVM's shuffles want.
    fn as_vector(&self, a: BasicValueEnum<'c>) -> Result<inkwell::values::VectorValue<'c>, Failure> {
        if let BasicValueEnum::VectorValue(v) = a {
            return Ok(v);
        }
        let one = match a.get_type() {
            inkwell::types::BasicTypeEnum::FloatType(t) => t.vec_type(1),
            t => t.into_int_type().vec_type(1),
        };
        let zero = self.context.i32_type().const_zero();
        Ok(self.builder.build_insert_element(one.get_poison(), a, zero, "")?)
    }
}

/// A constant in every lane.
fn constant(scalar: BasicValueEnum, lanes: u16) -> BasicValueEnum {
    if lanes == 1 { scalar } else { VectorType::const_vector(&vec![scalar; lanes.into()]).into() }
}
