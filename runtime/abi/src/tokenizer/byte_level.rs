//! GPT-2's spelling of bytes as printable characters.
//!
//! Printable bytes stand for themselves; the other 68 are U+0100 and following, in order
//! (`bytes_to_unicode` of <https://github.com/openai/gpt-2/blob/master/src/encoder.py>).

const fn printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

const fn to_char() -> [char; 256] {
    let mut table = ['\0'; 256];
    let (mut i, mut extra) = (0, 0);
    while i < 256 {
        let code = if printable(i as u8) {
            i as u32
        } else {
            extra += 1;
            0xFF + extra
        };
        table[i] = match char::from_u32(code) {
            Some(c) => c,
            None => panic!("code points up to 0x143 are characters"),
        };
        i += 1;
    }
    table
}

/// Spelling of each byte.
pub const BYTE_TO_CHAR: [char; 256] = to_char();

const SPELLED: usize = 0x100 + 68;

const fn to_byte() -> [Option<u8>; SPELLED] {
    let mut table = [None; SPELLED];
    let mut i = 0;
    while i < 256 {
        table[BYTE_TO_CHAR[i] as usize] = Some(i as u8);
        i += 1;
    }
    table
}

const CHAR_TO_BYTE: [Option<u8>; SPELLED] = to_byte();

/// The byte that `c` spells.
#[inline]
pub fn byte_of(c: char) -> Option<u8> {
    CHAR_TO_BYTE.get(c as usize).copied().flatten()
}

/// The bytes that `text` spells, or `None` if one of its characters spells none.
pub fn bytes_of(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte_of).collect()
}

/// The spelling of `bytes`.
pub fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| BYTE_TO_CHAR[b as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_spelling() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes_of(&spell(&all)), Some(all));
        assert_eq!(spell(b" \n\0a"), "ĠĊĀa");
        assert_eq!(bytes_of("a b"), None);
    }
}
