//! `{% generation %}` blocks, which training tools put into templates: only their tags are removed.

/// `source` without generation tags. White-space control of the tags is kept by turning them into
/// comments.
pub fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        out.push_str(&rest[..start]);
        let tail = &rest[start..];
        let Some(len) = tail[2..].find("%}") else {
            rest = tail;
            break;
        };
        let (inner, end) = (&tail[2..2 + len], 2 + len);
        match inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace()) {
            "generation" | "endgeneration" => {
                let left = if inner.starts_with('-') { "-" } else { "" };
                let right = if inner.ends_with('-') { "-" } else { "" };
                out.push_str(&format!("{{#{left} {right}#}}"));
            }
            _ => out.push_str(&tail[..end + 2]),
        }
        rest = &tail[end + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_generation_tags_go() {
        let cases = [
            ("a{% generation %}b{% endgeneration %}c", "a{# #}b{# #}c"),
            ("{%- generation -%} x {%- endgeneration %}", "{#- -#} x {#- #}"),
            ("{% if generation %}{% endif %}", "{% if generation %}{% endif %}"),
            ("{{ x }} {% broken", "{{ x }} {% broken"),
            ("{%} x", "{%} x"),
        ];
        for (source, expected) in cases {
            assert_eq!(without_generation_tags(source), expected);
        }
    }
}
