//! What `ptxas -v` prints.

/// What the assembler says of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelReport {
    /// Its name.
    pub name: String,
    /// Registers of each thread.
    pub registers: u32,
    /// Bytes of each thread's stack.
    pub stack_bytes: u32,
    /// Bytes stored for want of registers.
    pub spill_stores: u32,
    /// Bytes loaded back.
    pub spill_loads: u32,
    /// Bytes of shared memory that the kernel declares; what a launch adds is not in it.
    pub shared_bytes: u32,
}

/// Reads what the assembler printed: the kernels, and what it warned of.
pub(crate) fn parse(said: &str) -> (Vec<KernelReport>, Vec<String>) {
    let mut kernels: Vec<KernelReport> = Vec::new();
    // Numbers follow the name they belong to; those of functions that are no kernels go nowhere,
    // as the kernel's own stack has room for theirs.
    let mut of_kernel = false;
    for line in said.lines() {
        if let Some(name) = quoted_after(line, "Compiling entry function") {
            kernels.push(KernelReport { name: name.into(), ..KernelReport::default() });
            of_kernel = true;
        } else if let Some((_, name)) = line.split_once("Function properties for ") {
            of_kernel = kernels.last().is_some_and(|k| k.name == name.trim());
        } else if let Some(kernel) = kernels.last_mut().filter(|_| of_kernel) {
            numbers(line, kernel);
        }
    }
    (kernels, said.lines().filter_map(warning).collect())
}

fn numbers(line: &str, kernel: &mut KernelReport) {
    let fields = [
        ("bytes stack frame", &mut kernel.stack_bytes),
        ("bytes spill stores", &mut kernel.spill_stores),
        ("bytes spill loads", &mut kernel.spill_loads),
        ("bytes smem", &mut kernel.shared_bytes),
        ("registers", &mut kernel.registers),
    ];
    for (unit, field) in fields {
        if let Some(number) = number_before(line, unit) {
            *field = number;
        }
    }
    if let Some(stack) = number_before(line, "bytes cumulative stack size") {
        kernel.stack_bytes = kernel.stack_bytes.max(stack);
    }
}

fn number_before(line: &str, unit: &str) -> Option<u32> {
    let (before, _) = line.split_once(unit)?;
    before.split_whitespace().last()?.parse().ok()
}

fn quoted_after<'a>(line: &'a str, text: &str) -> Option<&'a str> {
    line.split_once(text)?.1.split('\'').nth(1)
}

/// A warning, or the advice that ptxas numbers but calls information: that it serialized tensor
/// instructions, or left out a change of registers.
fn warning(line: &str) -> Option<String> {
    let (_, text) = line.split_once("warning :").or_else(|| line.split_once("warning:")).or_else(|| {
        let info = line.split_once("info    :").or_else(|| line.split_once("info :"))?;
        (info.1.trim().starts_with("(C") || info.1.contains("Potential Performance Loss")).then_some(info)
    })?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
ptxas kernel.ptx, line 7; warning : Advisory: '.multicast::cluster' modifier
ptxas info    : 0 bytes gmem
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized
ptxas info    : Compiling entry function 'tiny' for 'sm_80'
ptxas info    : Function properties for tiny
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 4 registers, used 0 barriers, 352 bytes cmem[0]
ptxas info    : Compiling entry function 'k' for 'sm_80'
ptxas info    : Function properties for k
    64 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 24 registers, used 0 barriers, 96 bytes cumulative stack size, 512 bytes smem, 368 bytes cmem[0]
ptxas info    : Function properties for helper
    32 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
";

    #[test]
    fn numbers_go_to_their_kernel() {
        let (kernels, _) = parse(SAID);
        let tiny = KernelReport { name: "tiny".into(), registers: 4, ..KernelReport::default() };
        let k = KernelReport {
            name: "k".into(),
            registers: 24,
            stack_bytes: 96,
            spill_stores: 8,
            spill_loads: 12,
            shared_bytes: 512,
        };
        assert_eq!(kernels, [tiny, k]);
    }

    #[test]
    fn advice_counts_as_a_warning() {
        let (_, warnings) = parse(SAID);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("Advisory") && warnings[1].contains("serialized"), "{warnings:?}");
    }
}
