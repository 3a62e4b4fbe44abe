//! Added tokens as a tree over bytes.
//!
//! Layout: 256 u32 (node reached by each first byte, [`NONE`] if none); the number of nodes (u32);
//! nodes of 16 bytes: first edge, number of edges, id or [`NONE`], bits of [`super::added`]; edges
//! of 8 bytes: byte, node (u32 each), sorted by byte within a node. An empty section matches nothing.

use super::bytes::read_u32;
use super::{NONE, added};

const ROOT_BYTES: usize = 256 * 4;
const NODE_BYTES: usize = 16;
const EDGE_BYTES: usize = 8;

/// View of one tree.
#[derive(Clone, Copy, Debug)]
pub struct Trie<'a> {
    root: &'a [u8],
    nodes: &'a [u8],
    edges: &'a [u8],
}

/// A token found at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrieMatch {
    /// Bytes matched.
    pub len: usize,
    /// The token.
    pub id: u32,
    /// Bits of [`super::added`].
    pub flags: u32,
}

impl TrieMatch {
    /// Whether the token is a control token.
    pub fn is_special(&self) -> bool {
        self.flags & added::SPECIAL != 0
    }
}

impl<'a> Trie<'a> {
    /// The tree in a section; damaged ones match nothing.
    pub fn new(section: &'a [u8]) -> Self {
        Self::parse(section).unwrap_or(Trie { root: &[], nodes: &[], edges: &[] })
    }

    fn parse(section: &'a [u8]) -> Option<Self> {
        let (root, rest) = section.split_at_checked(ROOT_BYTES)?;
        let nodes = (read_u32(rest, 0)? as usize).checked_mul(NODE_BYTES)?;
        let (nodes, edges) = rest.get(4..)?.split_at_checked(nodes)?;
        Some(Trie { root, nodes, edges })
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Longest token that `bytes` starts with and `allow` takes.
    #[inline]
    pub fn longest(&self, bytes: &[u8], allow: impl Fn(&TrieMatch) -> bool) -> Option<TrieMatch> {
        let first = *bytes.first()?;
        let node = read_u32(self.root, first as usize * 4).filter(|&n| n != NONE)?;
        self.descend(node, bytes, allow)
    }

    fn descend(&self, mut node: u32, bytes: &[u8], allow: impl Fn(&TrieMatch) -> bool) -> Option<TrieMatch> {
        let mut best = None;
        for len in 1..=bytes.len() {
            let at = node as usize * NODE_BYTES;
            let (id, flags) = (read_u32(self.nodes, at + 8)?, read_u32(self.nodes, at + 12)?);
            let found = TrieMatch { len, id, flags };
            if id != NONE && allow(&found) {
                best = Some(found);
            }
            match bytes.get(len).and_then(|&b| self.child(at, b)) {
                Some(next) => node = next,
                None => break,
            }
        }
        best
    }

    fn child(&self, at: usize, byte: u8) -> Option<u32> {
        let first = read_u32(self.nodes, at)? as usize;
        let (mut low, mut high) = (0, read_u32(self.nodes, at + 4)? as usize);
        while low < high {
            let mid = (low + high) / 2;
            let edge = (first + mid) * EDGE_BYTES;
            match read_u32(self.edges, edge)?.cmp(&(byte as u32)) {
                std::cmp::Ordering::Equal => return read_u32(self.edges, edge + 4),
                std::cmp::Ordering::Less => low = mid + 1,
                std::cmp::Ordering::Greater => high = mid,
            }
        }
        None
    }
}
