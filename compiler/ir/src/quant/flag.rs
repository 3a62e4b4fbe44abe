//! Schemes as the command line spells them: `w4`, `w8:group=64`, `int4:group=128,asym`.

use super::Scheme;
use thiserror::Error;

/// Names that the command line knows.
const KNOWN: &str = "w8, w8a8, w6, w5, w4, w3, w2, int4, nf4, fp8";

/// Why a flag names no scheme.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FlagError {
    /// No scheme has this name.
    #[error("unknown quantization `{0}`; known: {KNOWN}")]
    Name(String),
    /// The scheme takes no such option.
    #[error("quantization `{name}` has no option `{option}`; {known}")]
    Option {
        /// Name of the scheme.
        name: String,
        /// The option as written.
        option: String,
        /// The options that exist.
        known: &'static str,
    },
    /// The group is not one of those allowed.
    #[error("quantization `{name}` has no group of {group}; known: {known}")]
    Group {
        /// Name of the scheme.
        name: String,
        /// The group as written.
        group: String,
        /// The groups that exist, separated by commas.
        known: String,
    },
}

impl Scheme {
    /// The scheme that the command line spells `text`: a name, then options after a colon.
    ///
    /// Without `group=`, w8 and int4 have groups of 32, nf4 of 64.
    ///
    /// # Errors
    /// [`FlagError`] with a message that lists what is known.
    pub fn parse_flag(text: &str) -> Result<Scheme, FlagError> {
        let (name, options) = text.split_once(':').map_or((text, None), |(n, o)| (n, Some(o)));
        let default = match name {
            "w8" | "int4" => "32",
            "nf4" => "64",
            _ => {
                let scheme = Scheme::plain(name).ok_or_else(|| FlagError::Name(name.into()))?;
                return options.map_or(Ok(scheme), |option| Err(unknown(name, option)));
            }
        };
        let (mut group, mut asym) = (default, false);
        for option in options.into_iter().flat_map(|o| o.split(',')) {
            match option.split_once('=') {
                Some(("group", value)) => group = value,
                None if option == "asym" && name == "int4" => asym = true,
                _ => return Err(unknown(name, option)),
            }
        }
        let full = if asym { "int4_asym" } else { name };
        let scheme = group.parse().ok().and_then(|g| Scheme::grouped(full, g));
        scheme.ok_or_else(|| bad_group(full, name, group))
    }
}

/// The error of an option that the scheme does not take.
fn unknown(name: &str, option: &str) -> FlagError {
    let known = match name {
        "int4" => "known: group=N, asym",
        "w8" | "nf4" => "known: group=N",
        _ => "it takes none",
    };
    FlagError::Option { name: name.into(), option: option.into(), known }
}

/// The error of a group that is not allowed.
fn bad_group(full: &str, name: &str, group: &str) -> FlagError {
    let known: Vec<String> = Scheme::allowed_groups(full).iter().map(u16::to_string).collect();
    FlagError::Group { name: name.into(), group: group.into(), known: known.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, name) in [
            ("w8", "w8(32)"),
            ("w8:group=128", "w8(128)"),
            ("w8a8", "w8a8"),
            ("w6", "w6"),
            ("w5", "w5"),
            ("w4", "w4"),
            ("w3", "w3"),
            ("w2", "w2"),
            ("int4", "int4(32)"),
            ("int4:asym", "int4_asym(32)"),
            ("int4:group=128,asym", "int4_asym(128)"),
            ("int4:asym,group=64", "int4_asym(64)"),
            ("nf4", "nf4(64)"),
            ("nf4:group=32", "nf4(32)"),
            ("fp8", "fp8"),
        ] {
            assert_eq!(Scheme::parse_flag(text).unwrap().to_string(), name, "{text}");
        }
    }

    #[test]
    fn messages_list_what_is_known() {
        let message = |text: &str| Scheme::parse_flag(text).unwrap_err().to_string();
        assert_eq!(message("q4_k"), "unknown quantization `q4_k`; known: w8, w8a8, w6, w5, w4, w3, w2, int4, nf4, fp8");
        assert_eq!(message("int4_asym"), format!("unknown quantization `int4_asym`; known: {KNOWN}"));
        assert_eq!(message("w4:group=32"), "quantization `w4` has no option `group=32`; it takes none");
        assert_eq!(message("w8:asym"), "quantization `w8` has no option `asym`; known: group=N");
        assert_eq!(message("int4:"), "quantization `int4` has no option ``; known: group=N, asym");
        assert_eq!(message("int4:group=16"), "quantization `int4` has no group of 16; known: 32, 64, 128");
        assert_eq!(message("w8:group=x"), "quantization `w8` has no group of x; known: 32, 64, 128");
    }
}
