//! AMX instructions, as bytes of a program hold them (Intel SDM, volume 2: VEX prefix, ModRM, SIB and the
//! instructions' own pages).

/// Memory that an instruction names: `base + (index << shift) + displacement`; registers by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub base: Option<u8>,
    pub index: Option<(u8, u8)>,
    pub displacement: i32,
}

/// What is multiplied in a product of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// Bytes of which those of the first or the second tile are signed.
    Bytes { signed: [bool; 2] },
    /// Pairs of bf16.
    Bf16,
}

/// An instruction; tiles by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    Configure(Address),
    Release,
    Zero(u8),
    /// Rows at an address; the index is the stride between them.
    Load(u8, Address),
    Store(u8, Address),
    Multiply {
        product: Product,
        sums: u8,
        tiles: [u8; 2],
    },
}

/// Bytes of code, counted as they are taken.
struct Code<I> {
    bytes: I,
    taken: usize,
}

impl<I: Iterator<Item = u8>> Code<I> {
    fn byte(&mut self) -> Option<u8> {
        self.taken += 1;
        self.bytes.next()
    }

    fn displacement(&mut self, mode: u8) -> Option<i32> {
        match mode {
            1 => Some(i32::from(self.byte()? as i8)),
            2 => Some(i32::from_le_bytes([self.byte()?, self.byte()?, self.byte()?, self.byte()?])),
            _ => Some(0),
        }
    }

    /// The address that follows a ModRM byte; `high` are the fourth bits of index and base. None where it is relative
    /// to the instruction or absolute, which compiled code does not use with tiles.
    fn address(&mut self, modrm: u8, [high_index, high_base]: [u8; 2]) -> Option<Address> {
        let (mode, place) = (modrm >> 6, modrm & 7);
        if place != 4 {
            let displacement = self.displacement(mode)?;
            return (mode != 0 || place != 5).then_some(Address {
                base: Some(place | high_base),
                index: None,
                displacement,
            });
        }
        let sib = self.byte()?;
        let (shift, index, base) = (sib >> 6, sib >> 3 & 7 | high_index, sib & 7);
        let absolute = mode == 0 && base == 5;
        let displacement = self.displacement(if absolute { 2 } else { mode })?;
        let base = (!absolute).then_some(base | high_base);
        Some(Address { base, index: (index != 4).then_some((index, shift)), displacement })
    }
}

/// The instruction at the beginning of `bytes` and its length; none if it is no AMX instruction.
pub(super) fn decode(bytes: impl Iterator<Item = u8>) -> Option<(Instruction, usize)> {
    let mut code = Code { bytes, taken: 0 };
    let [escape, first, second, opcode, modrm] = [code.byte()?, code.byte()?, code.byte()?, code.byte()?, code.byte()?];
    // VEX in three bytes, opcodes of the map 0F38, 128 bits, W0.
    if escape != 0xc4 || first & 0x1f != 2 || second & 0x84 != 0 {
        return None;
    }
    let high = |bit: u8| (!first >> bit & 1) << 3;
    let (prefix, third) = (second & 3, !second >> 3 & 15);
    let (register, place) = (modrm >> 3 & 7, modrm & 7);
    let instruction = match (opcode, prefix, modrm >> 6) {
        (0x49, 0, 3) if modrm == 0xc0 => Instruction::Release,
        (0x49, 3, 3) if place == 0 => Instruction::Zero(register),
        (0x49, 0, ..3) if register == 0 => Instruction::Configure(code.address(modrm, [high(6), high(5)])?),
        (0x4b, 1 | 3, ..3) if place == 4 => Instruction::Load(register, code.address(modrm, [high(6), high(5)])?),
        (0x4b, 2, ..3) if place == 4 => Instruction::Store(register, code.address(modrm, [high(6), high(5)])?),
        (0x5e, _, 3) => {
            let signed = [prefix & 2 != 0, prefix == 1 || prefix == 3];
            let product = Product::Bytes { signed };
            Instruction::Multiply { product, sums: register, tiles: [place, third] }
        }
        (0x5c, 2, 3) => Instruction::Multiply { product: Product::Bf16, sums: register, tiles: [place, third] },
        _ => return None,
    };
    Some((instruction, code.taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<(Instruction, usize)> {
        decode(bytes.iter().copied())
    }

    /// Encodings as an assembler makes them.
    #[test]
    fn instructions_are_what_an_assembler_meant() {
        let at =
            |base: u8, index: Option<(u8, u8)>, displacement: i32| Address { base: Some(base), index, displacement };
        let multiply = |product, sums, tiles| Instruction::Multiply { product, sums, tiles };
        let bytes = |signed| Product::Bytes { signed };
        let table: [(&[u8], Instruction); 12] = [
            // ldtilecfg [rsp - 64]; ldtilecfg [r9]
            (&[0xc4, 0xe2, 0x78, 0x49, 0x44, 0x24, 0xc0], Instruction::Configure(at(4, None, -64))),
            (&[0xc4, 0xc2, 0x78, 0x49, 0x01], Instruction::Configure(at(9, None, 0))),
            // tilerelease; tilezero tmm3
            (&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Instruction::Release),
            (&[0xc4, 0xe2, 0x7b, 0x49, 0xd8], Instruction::Zero(3)),
            // tileloadd tmm5, [rdi + rsi]; tileloadd tmm6, [r12 + 2*r13 + 1024]; tileloaddt1 tmm0, [rax + rcx]
            (&[0xc4, 0xe2, 0x7b, 0x4b, 0x2c, 0x37], Instruction::Load(5, at(7, Some((6, 0)), 0))),
            (&[0xc4, 0x82, 0x7b, 0x4b, 0xb4, 0x6c, 0, 4, 0, 0], Instruction::Load(6, at(12, Some((13, 1)), 1024))),
            (&[0xc4, 0xe2, 0x79, 0x4b, 0x04, 0x08], Instruction::Load(0, at(0, Some((1, 0)), 0))),
            // tilestored [rbx + rdx + 64], tmm1
            (&[0xc4, 0xe2, 0x7a, 0x4b, 0x4c, 0x13, 0x40], Instruction::Store(1, at(3, Some((2, 0)), 64))),
            // tdpbssd tmm1, tmm2, tmm3; tdpbsud tmm0, tmm4, tmm6; tdpbusd tmm3, tmm5, tmm7; tdpbf16ps tmm2, tmm5, tmm6
            (&[0xc4, 0xe2, 0x63, 0x5e, 0xca], multiply(bytes([true, true]), 1, [2, 3])),
            (&[0xc4, 0xe2, 0x4a, 0x5e, 0xc4], multiply(bytes([true, false]), 0, [4, 6])),
            (&[0xc4, 0xe2, 0x41, 0x5e, 0xdd], multiply(bytes([false, true]), 3, [5, 7])),
            (&[0xc4, 0xe2, 0x4a, 0x5c, 0xd5], multiply(Product::Bf16, 2, [5, 6])),
        ];
        for (code, expected) in table {
            assert_eq!(of(code), Some((expected, code.len())), "{code:x?}");
        }
    }

    #[test]
    fn other_code_is_none() {
        let others: [&[u8]; 5] = [
            &[0x0f, 0x0b, 0, 0, 0],
            &[0xc4, 0xe2, 0x7d, 0x58, 0xc0],
            &[0xc4, 0xe2, 0x7c, 0x49, 0xc0],
            &[0xc4, 0xe2, 0x78],
            &[0xc4, 0xe2, 0x7b, 0x4b, 0x2c],
        ];
        others.iter().for_each(|code| assert_eq!(of(code), None, "{code:x?}"));
    }
}
