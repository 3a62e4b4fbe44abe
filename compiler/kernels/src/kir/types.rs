//! Types of KIR values.

use std::fmt;

/// Element of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elem {
    /// Truth value; result of a comparison.
    I1,
    /// 8-bit integer.
    I8,
    /// 16-bit integer; also the storage of f16 and bf16.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer; also every index.
    I64,
    /// binary32.
    F32,
    /// binary64.
    F64,
    /// Byte address. Never a vector.
    Ptr,
}

impl Elem {
    /// Every element with its name in the text form.
    pub const TABLE: [(Elem, &'static str); 8] = [
        (Elem::I1, "i1"),
        (Elem::I8, "i8"),
        (Elem::I16, "i16"),
        (Elem::I32, "i32"),
        (Elem::I64, "i64"),
        (Elem::F32, "f32"),
        (Elem::F64, "f64"),
        (Elem::Ptr, "ptr"),
    ];

    /// Bits of one element; a pointer has 64, a truth value 1.
    pub fn bits(self) -> u32 {
        match self {
            Elem::I1 => 1,
            Elem::I8 => 8,
            Elem::I16 => 16,
            Elem::I32 | Elem::F32 => 32,
            Elem::I64 | Elem::F64 | Elem::Ptr => 64,
        }
    }

    /// True for f32 and f64.
    pub fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64)
    }

    /// True for i8 to i64.
    pub fn is_int(self) -> bool {
        matches!(self, Elem::I8 | Elem::I16 | Elem::I32 | Elem::I64)
    }
}

/// Type of a value: a scalar, or a vector of 2 to 64 elements. Printed `f32` or `f32x16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ty {
    /// Element.
    pub elem: Elem,
    /// Number of elements; 1 is a scalar. A power of two.
    pub lanes: u16,
}

#[allow(missing_docs)]
impl Ty {
    pub const I1: Ty = Ty::scalar(Elem::I1);
    pub const I8: Ty = Ty::scalar(Elem::I8);
    pub const I16: Ty = Ty::scalar(Elem::I16);
    pub const I32: Ty = Ty::scalar(Elem::I32);
    pub const I64: Ty = Ty::scalar(Elem::I64);
    pub const F32: Ty = Ty::scalar(Elem::F32);
    pub const F64: Ty = Ty::scalar(Elem::F64);
    pub const PTR: Ty = Ty::scalar(Elem::Ptr);
}

impl Ty {
    /// A scalar of this element.
    pub const fn scalar(elem: Elem) -> Ty {
        Ty { elem, lanes: 1 }
    }

    /// `lanes` of this element.
    pub const fn vector(elem: Elem, lanes: u16) -> Ty {
        Ty { elem, lanes }
    }

    /// As many lanes of another element.
    pub const fn with_elem(self, elem: Elem) -> Ty {
        Ty { elem, lanes: self.lanes }
    }

    /// Bytes in memory. A truth value has none: it is never stored.
    pub fn bytes(self) -> u32 {
        self.elem.bits() / 8 * u32::from(self.lanes)
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Elem::TABLE.iter().find(|(e, _)| *e == self.elem).expect("every Elem is in TABLE").1;
        f.write_str(name)?;
        if self.lanes > 1 { write!(f, "x{}", self.lanes) } else { Ok(()) }
    }
}
