//! Stop strings over streamed text: text is held back while it may be the beginning of one.

/// Watches a stream for the first stop string.
pub struct StopStrings {
    stops: Vec<String>,
    /// Text not yet given on; a beginning of some stop string starts in it.
    held: String,
}

impl StopStrings {
    /// A watcher for `stops`; empty strings are ignored.
    pub fn new(stops: &[String]) -> Self {
        let stops: Vec<_> = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        Self { held: String::with_capacity(256), stops }
    }

    /// Takes the next piece of text and appends to `out` what is certainly not part of a stop
    /// string. True once a stop string is complete: nothing after its beginning is ever given.
    pub fn push(&mut self, text: &str, out: &mut String) -> bool {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            out.push_str(&self.held[..at]);
            self.held.clear();
            return true;
        }
        let keep = self.held.len() - self.partial();
        out.push_str(&self.held[..keep]);
        self.held.drain(..keep);
        false
    }

    /// Appends what was held back: the stream has ended without a stop string.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Bytes at the end of what is held that begin some stop string.
    fn partial(&self) -> usize {
        let begins = |stop: &String| {
            let longest = stop.len().saturating_sub(1).min(self.held.len());
            (1..=longest).rev().find(|&n| stop.is_char_boundary(n) && self.held.ends_with(&stop[..n])).unwrap_or(0)
        };
        self.stops.iter().map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<_> = stops.iter().map(|s| s.to_string()).collect();
        let mut watcher = StopStrings::new(&stops);
        let mut outs = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            let stopped = watcher.push(piece, &mut out);
            outs.push(out);
            if stopped {
                return (outs, true);
            }
        }
        let mut out = String::new();
        watcher.finish(&mut out);
        outs.push(out);
        (outs, false)
    }

    /// Stop strings, pieces, what each gives and the end gives, whether it stopped.
    type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], bool);

    #[test]
    fn streams() {
        let cases: [Case; 8] = [
            (&[], &["a", "b"], &["a", "b", ""], false),
            (&["END"], &["xENDy"], &["x"], true),
            (&["END"], &["x E", "N", "D!"], &["x ", "", ""], true),
            (&["END"], &["E", "EN", "x"], &["", "E", "ENx", ""], false),
            (&["END"], &["a", "E"], &["a", "", "E"], false),
            (&["aab"], &["a", "a", "a", "b"], &["", "", "a", ""], true),
            (&["끝.", "\n\n"], &["가끝", ".나"], &["가", ""], true),
            (&["bc", "abcd"], &["abc"], &["a"], true),
        ];
        for (stops, pieces, outs, stopped) in cases {
            assert_eq!(run(stops, pieces), (outs.iter().map(|s| s.to_string()).collect(), stopped), "{pieces:?}");
        }
    }

    #[test]
    fn empty_stops_are_ignored() {
        assert_eq!(run(&[""], &["a"]), (vec!["a".into(), String::new()], false));
    }
}
