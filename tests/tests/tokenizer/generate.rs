//! Seeded texts of the kinds that tokenizers get wrong.

/// A small seeded generator (xorshift64*).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    pub fn pick<'t, T: ?Sized>(&mut self, from: &[&'t T]) -> &'t T {
        from[self.below(from.len())]
    }

    fn char_in(&mut self, first: u32, last: u32) -> char {
        char::from_u32(first + self.below((last - first + 1) as usize) as u32).unwrap_or('\u{FFFD}')
    }
}

const ENGLISH: [&str; 24] = [
    "the",
    "Hello",
    "world",
    "don't",
    "I'LL",
    "we'Re",
    "they'd",
    "it'ſ",
    "O'Brien",
    "naïve",
    "café",
    "straße",
    "ﬁne",
    "HTTPServer",
    "iPhone",
    "ÀÉÎ",
    "ǅungla",
    "ʰx",
    "1st",
    "x86-64",
    "e.g.",
    "Kelvin",
    "(ok)",
    "“quoted”",
];
const CODE: [&str; 16] = [
    "fn main() {",
    "\n    ",
    "\t\t",
    "if (a != b) ",
    "// ",
    "/* */",
    "->",
    "::",
    "\"str\\n\"",
    "#include <x>\r\n",
    "foo_bar",
    "0x1F",
    "1_000.5e-3",
    "&&=||",
    "</div>",
    "${x}",
];
const EMOJI: [&str; 12] = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇰🇷", "1️⃣", "❤️", "🥲", "🫠", "™", "©", "🤷🏻‍♀️"];
const SPACES: [&str; 16] = [
    " ",
    "  ",
    "   ",
    "\n",
    "\r\n",
    "\n\n",
    "\t",
    " \n ",
    "\u{A0}",
    "\u{3000}",
    "\u{2028}",
    "\u{85}",
    "\u{1680}",
    "\u{200B}",
    "\u{FEFF}",
    " \t\n\u{B}\u{C}\r",
];
const SPECIAL: [&str; 14] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|bos|>",
    "<|eos|>",
    "<|pad|>",
    "<|im_end",
    "|im_end|>",
    "<<|im_end|>>",
    "<|",
    "|>",
    "<s>",
    "</s>",
    "<unk>",
    "<0x0A>",
];
const MARKS: [&str; 16] = [
    "\u{301}",
    "\u{308}",
    "\u{327}",
    "\u{323}",
    "\u{345}",
    "\u{3099}",
    "\u{1161}",
    "\u{11A8}",
    "\u{1100}",
    "\u{1DFA}",
    "\u{1E2EE}",
    "\u{1E08F}",
    "\u{11F42}",
    "\u{16D67}",
    "\u{113B8}",
    "\u{10EFD}",
];
const PUNCTUATION: [&str; 16] =
    ["'", "''", "...", "…", "。", "、", "!?", "—", "_", "▁", "▁▁", "Ġ", "Ċ", "¿", "€", "+-*/="];

/// A text made of up to some tens of pieces of mixed kinds.
pub fn text(rng: &mut Rng) -> String {
    if rng.below(16) == 0 {
        return broken(rng);
    }
    let most = if rng.below(8) == 0 { 60 } else { 12 };
    let pieces = 1 + rng.below(most);
    let mut out = String::new();
    let mut kind = rng.below(14);
    for _ in 0..pieces {
        if rng.below(3) == 0 {
            kind = rng.below(14);
        }
        piece(rng, kind, &mut out);
        if rng.below(3) == 0 {
            out.push(' ');
        }
    }
    out
}

fn piece(rng: &mut Rng, kind: usize, out: &mut String) {
    match kind {
        0 | 1 => out.push_str(rng.pick(&ENGLISH)),
        2 => out.push_str(rng.pick(&CODE)),
        3 => out.push_str(rng.pick(&EMOJI)),
        4 => out.push_str(rng.pick(&SPACES)),
        5 => out.push_str(rng.pick(&SPECIAL)),
        6 => out.push_str(rng.pick(&PUNCTUATION)),
        7 => run(rng, out, &[(0xAC00, 0xD7A3)]),
        8 => run(rng, out, &[(0x4E00, 0x9FFF), (0x3041, 0x3096), (0x30A1, 0x30FA), (0xFF01, 0xFF5E), (0x3400, 0x4DBF)]),
        9 => run(rng, out, &[(0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2), (0x3131, 0x318E)]),
        10 => run(rng, out, &[(0x30, 0x39), (0x660, 0x669), (0xB2, 0xB3), (0x2160, 0x216F), (0x1D7CE, 0x1D7FF)]),
        11 => {
            run(rng, out, &[(0x61, 0x7A), (0xC0, 0x17F), (0x391, 0x3C9), (0x410, 0x44F), (0x1E00, 0x1EFF)]);
            (0..rng.below(3)).for_each(|_| out.push_str(rng.pick(&MARKS)));
        }
        12 => run(rng, out, &[(0, 0x1F), (0x7F, 0x9F), (0x2000, 0x206F), (0xE000, 0xE010), (0xFFF0, 0xFFFF)]),
        _ => run(
            rng,
            out,
            &[(0, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x10FFFF), (0x300, 0x36F), (0x2000, 0x2FFF), (0xF900, 0xFAFF)],
        ),
    }
}

fn run(rng: &mut Rng, out: &mut String, ranges: &[(u32, u32)]) {
    for _ in 0..1 + rng.below(6) {
        let (first, last) = ranges[rng.below(ranges.len())];
        out.push(rng.char_in(first, last));
    }
}

/// Arbitrary bytes, or a text with bytes changed, read as UTF-8 with replacement.
fn broken(rng: &mut Rng) -> String {
    let bytes: Vec<u8> = if rng.below(2) == 0 {
        (0..rng.below(40)).map(|_| rng.next() as u8).collect()
    } else {
        let mut bytes = "안녕 héllo 世界 😀 ok".repeat(1 + rng.below(2)).into_bytes();
        (0..1 + rng.below(5)).for_each(|_| {
            let at = rng.below(bytes.len());
            bytes[at] = rng.next() as u8;
        });
        bytes
    };
    String::from_utf8_lossy(&bytes).into_owned()
}

/// All characters but those of planes where nothing is assigned.
pub fn every_char() -> Vec<char> {
    ('\0'..'\u{33480}').chain('\u{E0000}'..'\u{E0200}').chain('\u{10FFF0}'..=char::MAX).collect()
}
