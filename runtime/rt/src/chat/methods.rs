//! Methods that Python's strings, dictionaries and lists have and templates call.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

/// Calls `method` of `value` as Python would.
pub fn call(_: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => string(text, method, args),
        (ValueKind::Map, _) => map(value, method, args),
        (ValueKind::Seq, _) => sequence(value, method, args),
        _ => Err(unknown(method)),
    }
}

fn unknown(method: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("the template calls {method}, which is not known here"))
}

fn string(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let value = match method {
        "upper" => none(args, text.to_uppercase())?,
        "lower" => none(args, text.to_lowercase())?,
        "capitalize" => none(args, capitalize(text))?,
        "title" => none(args, title(text))?,
        "isdigit" => none(args, !text.is_empty() && text.chars().all(char::is_numeric))?,
        "isalpha" => none(args, !text.is_empty() && text.chars().all(char::is_alphabetic))?,
        "isspace" => none(args, !text.is_empty() && text.chars().all(char::is_whitespace))?,
        "splitlines" => none(args, text.lines().map(Value::from).collect::<Vec<_>>())?,
        "strip" => text.trim_matches(set(args)?.as_ref()).into(),
        "lstrip" => text.trim_start_matches(set(args)?.as_ref()).into(),
        "rstrip" => text.trim_end_matches(set(args)?.as_ref()).into(),
        "startswith" => affixes(args)?.iter().any(|a| text.starts_with(a.as_str())).into(),
        "endswith" => affixes(args)?.iter().any(|a| text.ends_with(a.as_str())).into(),
        "removeprefix" => one(args)?.and_then(|a| text.strip_prefix(a)).unwrap_or(text).into(),
        "removesuffix" => one(args)?.and_then(|a| text.strip_suffix(a)).unwrap_or(text).into(),
        "find" => index(text, one(args)?.and_then(|a| text.find(a))),
        "rfind" => index(text, one(args)?.and_then(|a| text.rfind(a))),
        "count" => one(args)?.map_or(0, |a| text.matches(a).count()).into(),
        "replace" => replace(text, args)?,
        "split" => split(text, args, false)?,
        "rsplit" => split(text, args, true)?,
        "join" => join(text, args)?,
        _ => return Err(unknown(method)),
    };
    Ok(value)
}

/// A value for a method without arguments.
fn none(args: &[Value], value: impl Into<Value>) -> Result<Value, Error> {
    let () = from_args(args)?;
    Ok(value.into())
}

fn one(args: &[Value]) -> Result<Option<&str>, Error> {
    let (text,): (&str,) = from_args(args)?;
    Ok(Some(text))
}

/// Characters to strip: those given, or white space.
fn set(args: &[Value]) -> Result<Box<dyn Fn(char) -> bool + '_>, Error> {
    let (set,): (Option<&str>,) = from_args(args)?;
    Ok(match set {
        Some(set) => Box::new(move |c| set.contains(c)),
        None => Box::new(char::is_whitespace),
    })
}

/// One text, or a tuple of them.
fn affixes(args: &[Value]) -> Result<Vec<String>, Error> {
    let (value,): (&Value,) = from_args(args)?;
    match value.as_str() {
        Some(text) => Ok(vec![text.to_string()]),
        None => Ok(value.try_iter()?.map(|v| v.to_string()).collect()),
    }
}

/// A position in characters, -1 for none.
fn index(text: &str, at: Option<usize>) -> Value {
    at.map_or(-1, |at| text[..at].chars().count() as i64).into()
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphabetic();
    }
    out
}

fn replace(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
    Ok(match count.and_then(|n| usize::try_from(n).ok()) {
        Some(count) => text.replacen(old, new, count).into(),
        None => text.replace(old, new).into(),
    })
}

/// `split(separator=None, maxsplit=-1)`, from the left or from the right.
fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let pieces = most.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut parts: Vec<&str> = match (separator, from_right) {
        (Some(""), _) => return Err(Error::new(ErrorKind::InvalidOperation, "split: empty separator")),
        (Some(separator), false) => text.splitn(pieces, separator).collect(),
        (Some(separator), true) => text.rsplitn(pieces, separator).collect(),
        (None, false) => split_space(text, pieces),
        (None, true) => split_space_right(text, pieces),
    };
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect::<Vec<_>>().into())
}

/// Words of a text; the last one takes what is left.
fn split_space(text: &str, pieces: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        match rest.find(char::is_whitespace).filter(|_| parts.len() + 1 < pieces) {
            Some(end) => {
                parts.push(&rest[..end]);
                rest = rest[end..].trim_start();
            }
            // Python trims the end of the last word only where it was not cut short by the count.
            None => {
                parts.push(if pieces == usize::MAX { rest.trim_end() } else { rest });
                break;
            }
        }
    }
    parts
}

/// Words of a text from the last; the last one given takes what is left.
fn split_space_right(text: &str, pieces: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim_end());
    while !rest.is_empty() {
        match rest.rfind(char::is_whitespace).filter(|_| parts.len() + 1 < pieces) {
            Some(at) => {
                let word = at + rest[at..].chars().next().map_or(0, char::len_utf8);
                parts.push(&rest[word..]);
                rest = rest[..at].trim_end();
            }
            None => {
                parts.push(if pieces == usize::MAX { rest.trim_start() } else { rest });
                break;
            }
        }
    }
    parts
}

fn join(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (items,): (&Value,) = from_args(args)?;
    let items: Vec<_> = items.try_iter()?.map(|v| v.to_string()).collect();
    Ok(items.join(text).into())
}

fn map(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let keys = || -> Result<Vec<Value>, Error> { Ok(value.try_iter()?.collect()) };
    match method {
        "keys" => none(args, keys()?),
        "values" => none(args, keys()?.iter().map(|k| value.get_item(k)).collect::<Result<Vec<_>, _>>()?),
        "items" => {
            let pair = |k: Value| Ok(Value::from(vec![k.clone(), value.get_item(&k)?]));
            none(args, keys()?.into_iter().map(pair).collect::<Result<Vec<_>, Error>>()?)
        }
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            let found = value.get_item(key)?;
            Ok(if found.is_undefined() { default.unwrap_or(Value::from(())) } else { found })
        }
        _ => Err(unknown(method)),
    }
}

fn sequence(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (&Value,) = from_args(args)?;
    match method {
        "count" => Ok(value.try_iter()?.filter(|v| v == wanted).count().into()),
        "index" => value
            .try_iter()?
            .position(|v| v == *wanted)
            .map(Value::from)
            .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "index: not in the list")),
        _ => Err(unknown(method)),
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    fn eval(expression: &str) -> String {
        let mut env = Environment::new();
        env.set_unknown_method_callback(super::call);
        env.add_filter("tojson", super::super::json::tojson);
        let expression = format!("{{{{ {expression} }}}}");
        env.render_str(&expression, context! { m => context! { a => 1 } }).unwrap_or_else(|e| format!("error: {e}"))
    }

    /// Expected texts are what Python gives, lists written as JSON.
    #[test]
    fn as_python() {
        let cases = [
            ("' a b '.strip()", "a b"),
            ("'xxaxx'.strip('x')", "a"),
            ("'xxaxx'.lstrip('x') ~ '|' ~ 'axx'.rstrip('x')", "axx|a"),
            ("'abc'.startswith('ab') and 'abc'.endswith(('x', 'bc'))", "True"),
            ("'a,b,c'.split(',')|tojson", "[\"a\", \"b\", \"c\"]"),
            ("'a,b,c'.split(',', 1)|tojson", "[\"a\", \"b,c\"]"),
            ("'a,b,c'.rsplit(',', 1)|tojson", "[\"a,b\", \"c\"]"),
            ("' a  b c '.split()|tojson", "[\"a\", \"b\", \"c\"]"),
            ("' a  b c '.split(None, 1)|tojson", "[\"a\", \"b c \"]"),
            ("' a  b c '.rsplit(None, 1)|tojson", "[\" a  b\", \"c\"]"),
            ("''.split()|tojson", "[]"),
            ("'x</think>y'.split('</think>')[-1]", "y"),
            ("'aXbX'.replace('X', '-') ~ 'aXbX'.replace('X', '', 1)", "a-b-abX"),
            ("'가나'.find('나') ~ 'a'.find('z') ~ 'abab'.rfind('b')", "1-13"),
            ("'hello WORLD'.capitalize() ~ 'ab cd'.title() ~ 'a'.upper()", "Hello worldAb CdA"),
            ("'ab'.removeprefix('a') ~ 'ab'.removesuffix('a')", "bab"),
            ("', '.join(['a', 1])", "a, 1"),
            ("m.items()|tojson ~ m.keys()|tojson ~ m.values()|tojson", "[[\"a\", 1]][\"a\"][1]"),
            ("m.get('a') ~ m.get('b', 'd') ~ m.get('b')|tojson", "1dnull"),
            ("[1, 2, 1].count(1) ~ [1, 2].index(2)", "21"),
            ("{'a': [1, 'é<\"\\n'], 'b': {}}|tojson", "{\"a\": [1, \"é<\\\"\\n\"], \"b\": {}}"),
            ("[true, none, 1.5]|tojson", "[true, null, 1.5]"),
            ("{'a': [1, 2]}|tojson(indent=2)", "{\n  \"a\": [\n    1,\n    2\n  ]\n}"),
        ];
        for (expression, expected) in cases {
            assert_eq!(eval(expression), expected, "{expression}");
        }
        assert!(eval("'a'.nonsense()").contains("error"));
        assert!(eval("'a'.split('')").contains("error"));
    }
}
