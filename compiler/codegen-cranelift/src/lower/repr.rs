//! How KIR types are held in Cranelift's.

use cranelift_codegen::ir::{MemFlagsData, Type, types};
use llmc_kernels::kir::{Elem, Ty};

/// Bits of a register.
pub const BITS: u32 = 128;
/// Bytes of a register.
pub const BYTES: usize = 16;

/// Lane order of a bitcast between vectors, as in memory.
pub const LITTLE: MemFlagsData = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);

/// Type of a KIR value.
pub fn of(ty: Ty) -> Type {
    if ty.lanes == 1 { scalar(ty.elem) } else { register(lane(ty)) }
}

/// Type of a scalar.
pub fn scalar(elem: Elem) -> Type {
    match elem {
        Elem::I1 | Elem::I8 => types::I8,
        Elem::I16 => types::I16,
        Elem::I32 => types::I32,
        Elem::I64 | Elem::Ptr => types::I64,
        Elem::F32 => types::F32,
        Elem::F64 => types::F64,
    }
}

/// Type of a lane of a vector; for truth values, of the mask's lane.
pub fn lane(ty: Ty) -> Type {
    if ty.elem == Elem::I1 { mask_lane(ty.lanes) } else { scalar(ty.elem) }
}

/// Type of the lanes of a mask that fills a register.
pub fn mask_lane(lanes: u16) -> Type {
    Type::int((BITS / u32::from(lanes)) as u16).expect("2 to 16 lanes: 8 to 64 bits each")
}

/// The register full of such lanes.
pub fn register(lane: Type) -> Type {
    lane.by(BITS / lane.bits()).expect("lanes of 8 to 64 bits fill a register")
}

/// The integer type as wide as a lane.
pub fn int_of(lane: Type) -> Type {
    Type::int(lane.bits() as u16).expect("lanes are 8 to 64 bits wide")
}
