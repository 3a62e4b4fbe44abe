//! Reading machine code as nvdisasm prints it.

use std::collections::BTreeMap;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// Where it is in its function.
    pub address: u32,
    /// The predicate it is under, such as `@!P0`, or nothing.
    pub predicate: &'a str,
    /// Opcode and modifiers, such as `LDG.E.128.CONSTANT`.
    pub mnemonic: &'a str,
    /// The rest.
    pub operands: &'a str,
}

impl Instruction<'_> {
    /// Whether it is what a pattern asks for: `LDG` is every load from global memory, `LDG.128` every
    /// one whose modifiers include 128. Modifiers must come in the pattern's order, but others may
    /// come between, as they do from one GPU generation to the next.
    pub fn is(&self, pattern: &str) -> bool {
        let mut have = self.mnemonic.split('.');
        let mut want = pattern.split('.');
        have.next() == want.next() && want.all(|w| have.any(|h| h == w))
    }
}

/// One kernel's code, with the functions that only it calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// In order; padding after the last one that runs is in it.
    pub instructions: Vec<Instruction<'a>>,
    /// Each label with the number of instructions before it.
    labels: BTreeMap<&'a str, usize>,
}

/// Instructions that a backward branch repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Their indices in [`Function::instructions`]; the last is the branch.
    pub range: std::ops::Range<usize>,
}

impl<'a> Function<'a> {
    /// How many instructions are what the pattern asks for ([`Instruction::is`]).
    pub fn count(&self, pattern: &str) -> usize {
        self.instructions.iter().filter(|i| i.is(pattern)).count()
    }

    /// Loops, the longest first.
    pub fn loops(&self) -> Vec<Loop> {
        let mut loops: Vec<Loop> =
            self.instructions.iter().enumerate().filter_map(|(at, i)| self.loop_of(at, i)).collect();
        loops.sort_by_key(|l| (std::cmp::Reverse(l.range.len()), l.range.start));
        loops
    }

    /// The loop that a backward branch closes. The branch to itself after a function's end is none.
    fn loop_of(&self, at: usize, branch: &Instruction<'_>) -> Option<Loop> {
        let target = branch.is("BRA").then(|| branch.operands.split_once("`(")?.1.split(')').next()).flatten()?;
        let start = *self.labels.get(target)?;
        (start < at).then_some(Loop { range: start..at + 1 })
    }

    /// The instructions of a loop.
    pub fn body(&self, of: &Loop) -> &[Instruction<'a>] {
        &self.instructions[of.range.clone()]
    }
}

/// The functions of a listing.
pub fn functions(sass: &str) -> Vec<Function<'_>> {
    let mut functions: Vec<Function<'_>> = Vec::new();
    for line in sass.lines().map(str::trim) {
        let label = line.strip_suffix(':');
        if let Some(name) = label.and_then(|l| l.strip_prefix(".text.")) {
            functions.push(Function { name, ..Function::default() });
        } else if let Some(function) = functions.last_mut() {
            if let Some(label) = label {
                function.labels.insert(label, function.instructions.len());
            }
            function.instructions.extend(instruction(line));
        }
    }
    functions
}

/// Reads `/*0010*/ @P0 LDG.E R2, [R2.64] ;`.
fn instruction(line: &str) -> Option<Instruction<'_>> {
    let (address, rest) = line.strip_prefix("/*")?.split_once("*/")?;
    let address = u32::from_str_radix(address, 16).ok()?;
    let rest = rest.split("/*").next()?.trim().trim_end_matches(';').trim_end();
    let (predicate, rest) = match rest.starts_with('@') {
        true => rest.split_once(' ')?,
        false => ("", rest),
    };
    let rest = rest.trim_start();
    let (mnemonic, operands) = rest.split_once(' ').unwrap_or((rest, ""));
    (!mnemonic.is_empty()).then_some(Instruction { address, predicate, mnemonic, operands: operands.trim_start() })
}

/// How many instructions of each function are what a pattern asks for ([`Instruction::is`]).
pub fn count<'a>(sass: &'a str, pattern: &str) -> BTreeMap<&'a str, usize> {
    functions(sass).iter().map(|f| (f.name, f.count(pattern))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
\t.section\t.text.mma,\"ax\",@progbits
mma:
.text.mma:
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
.L_x_0:
        /*0010*/               @P0 LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0020*/                   HMMA.16816.F32.BF16 R8, R8, R2, RZ ;
        /*0030*/              @!P1 BRA `(.L_x_0) ;
        /*0040*/                   EXIT ;
.L_x_1:
        /*0050*/                   BRA `(.L_x_1);
        /*0060*/                   NOP;
.L_x_2:
.text.other:
        /*0000*/                   EXIT ;                    /* 0x000000000000794d */
";

    #[test]
    fn patterns_skip_modifiers_but_not_opcodes() {
        let all = functions(LISTING);
        let mma = &all[0];
        for (pattern, expected) in
            [("LDG", 1), ("LDG.E", 1), ("LDG.128", 1), ("LDG.64", 0), ("LD", 0), ("LDG.128.E", 0)]
        {
            assert_eq!(mma.count(pattern), expected, "{pattern}");
        }
        assert_eq!(count(LISTING, "EXIT"), BTreeMap::from([("mma", 1), ("other", 1)]));
        assert_eq!((mma.instructions[1].predicate, mma.instructions[1].operands), ("@P0", "R4, [R2.64]"));
    }

    #[test]
    fn a_loop_is_what_a_backward_branch_repeats() {
        let all = functions(LISTING);
        let loops = all[0].loops();
        assert_eq!(loops, [Loop { range: 1..4 }]);
        assert_eq!(all[0].body(&loops[0])[1].mnemonic, "HMMA.16816.F32.BF16");
    }
}
