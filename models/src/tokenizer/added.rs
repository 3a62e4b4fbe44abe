//! Added tokens to the trees of [`llmc_abi::tokenizer::Trie`].

use std::collections::BTreeMap;

use llmc_abi::tokenizer::{NONE, added};
use tokenizers::AddedToken;

/// A tree while it is made.
#[derive(Default)]
pub struct TrieBuilder {
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    children: BTreeMap<u8, usize>,
    value: Option<(u32, u32)>,
}

impl TrieBuilder {
    /// Adds a token; of two with the same text the first counts.
    pub fn insert(&mut self, text: &str, id: u32, flags: u32) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for &b in text.as_bytes() {
            let fresh = self.nodes.len();
            let next = *self.nodes[at].children.entry(b).or_insert(fresh);
            if next == fresh {
                self.nodes.push(Node::default());
            }
            at = next;
        }
        self.nodes[at].value.get_or_insert((id, flags));
    }

    /// The tree's bytes; none for an empty one.
    pub fn finish(self) -> Vec<u8> {
        let Some(root) = self.nodes.first() else { return Vec::new() };
        let mut words: Vec<u32> = (0..=255u8).map(|b| root.children.get(&b).map_or(NONE, |&n| n as u32)).collect();
        words.push(self.nodes.len() as u32);
        let mut first_edge = 0;
        for node in &self.nodes {
            let (id, flags) = node.value.unwrap_or((NONE, 0));
            words.extend([first_edge, node.children.len() as u32, id, flags]);
            first_edge += node.children.len() as u32;
        }
        let edges = self.nodes.iter().flat_map(|n| &n.children);
        words.extend(edges.flat_map(|(&b, &n)| [b as u32, n as u32]));
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }
}

/// Bits of [`added`] for a token.
pub fn flags_of(token: &AddedToken) -> u32 {
    let bits = [
        (token.single_word, added::SINGLE_WORD),
        (token.lstrip, added::LSTRIP),
        (token.rstrip, added::RSTRIP),
        (token.special, added::SPECIAL),
    ];
    bits.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum()
}
