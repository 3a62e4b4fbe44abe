//! The table of symbols that an artifact may use of the system's libraries.
//!
//! The build script reads it to check the runtime archive against it; the linker makes stub
//! libraries of it. The format is described in the table's first lines.

/// The table for x86-64 Linux with glibc.
pub const X86_64_LINUX_GNU: &str = include_str!("../data/x86_64-linux-gnu.symbols");

/// A shared library as the table describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library<'a> {
    /// `DT_SONAME`.
    pub soname: &'a str,
    /// Symbol versions that it defines.
    pub versions: Vec<Version<'a>>,
}

/// A symbol version and the symbols that have it by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    /// Its name: `GLIBC_2.34`.
    pub name: &'a str,
    /// Its symbols.
    pub symbols: Vec<Symbol<'a>>,
}

/// A symbol of a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// Bytes of an object; `None` for a function.
    pub object: Option<u64>,
}

/// Reads a table.
///
/// # Errors
///
/// Names the line that is no part of a table.
pub fn parse(table: &str) -> Result<Vec<Library<'_>>, String> {
    let mut libraries: Vec<Library<'_>> = Vec::new();
    for (number, line) in table.lines().enumerate() {
        let bad = || format!("line {} of the symbol table is malformed: {line:?}", number + 1);
        let mut words = line.split_whitespace();
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        } else if line.starts_with(' ') {
            let version = libraries.last_mut().and_then(|l| l.versions.last_mut()).ok_or_else(bad)?;
            for word in words {
                version.symbols.push(symbol(word).ok_or_else(bad)?);
            }
        } else {
            let (Some(soname), Some(name), None) = (words.next(), words.next(), words.next()) else {
                return Err(bad());
            };
            if libraries.last().is_none_or(|l| l.soname != soname) {
                libraries.push(Library { soname, versions: Vec::new() });
            }
            let library = libraries.last_mut().ok_or_else(bad)?;
            library.versions.push(Version { name, symbols: Vec::new() });
        }
    }
    Ok(libraries)
}

fn symbol(word: &str) -> Option<Symbol<'_>> {
    match word.split_once(':') {
        None => Some(Symbol { name: word, object: None }),
        Some((name, size)) => Some(Symbol { name, object: Some(size.parse().ok()?) }),
    }
}
