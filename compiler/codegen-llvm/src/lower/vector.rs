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

    /// A lane of a vector.
    pub fn extract(&self, a: BasicValueEnum<'c>, lane: u16) -> Result<BasicValueEnum<'c>, Failure> {
        let BasicValueEnum::VectorValue(vector) = a else { return Ok(a) };
        let lane = self.context.i32_type().const_int(lane.into(), false);
        Ok(self.builder.build_extract_element(vector, lane, "")?)
    }

    /// A vector with one lane replaced.
    pub fn insert(
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

    /// An integer constant in every lane.
    pub fn constant(&self, ty: Ty, k: i64) -> BasicValueEnum<'c> {
        self.int(ty, k)
    }

    /// Runs `emit` on parts of at most `most` lanes of each operand, and of at least a quarter of that
    /// (the smallest of three register sizes), and joins the results.
    pub fn in_parts(
        &self,
        operands: &[BasicValueEnum<'c>],
        most: u16,
        emit: impl Fn(&Self, &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure>,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        let lanes = self.lanes(operands[0]);
        let least = most.min(if lanes < 16 { 4 } else { 16 });
        if lanes < least {
            let wide: Vec<_> = operands.iter().map(|v| self.resize(*v, least)).collect::<Result<_, _>>()?;
            return self.resize(emit(self, &wide)?, lanes);
        }
        let width = lanes.min(most);
        let mut parts = Vec::new();
        for first in (0..lanes).step_by(width.into()) {
            let picks: Vec<u16> = (first..first + width).collect();
            let part: Vec<_> = match width == lanes {
                true => operands.to_vec(),
                false => operands.iter().map(|v| self.shuffle(*v, *v, &picks)).collect::<Result<_, _>>()?,
            };
            parts.push(emit(self, &part)?);
        }
        self.concatenate(parts)
    }

    /// Vectors of one type side by side; their number is a power of two.
    fn concatenate(&self, mut parts: Vec<BasicValueEnum<'c>>) -> Result<BasicValueEnum<'c>, Failure> {
        while parts.len() > 1 {
            let lanes: Vec<u16> = (0..2 * self.lanes(parts[0])).collect();
            parts = parts.chunks(2).map(|two| self.shuffle(two[0], two[1], &lanes)).collect::<Result<_, _>>()?;
        }
        parts.pop().ok_or_else(|| Failure::from("no parts to join".to_string()))
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
