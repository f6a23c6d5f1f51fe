//! The tree of all tokens by their bytes.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

/// Nodes are numbers, 0 is the root; an edge is an entry of a hash table.
///
/// **Invariant:** there are fewer than 2²⁴ nodes, so that a node and a byte fit one key. The limit on the size of a
/// vocabulary keeps it.
pub(super) struct Trie {
    /// `node << 8 | byte` to the node below.
    edges: HashMap<u32, u32, FxBuildHasher>,
    /// The token that ends at a node; 0 if none does.
    ends: Vec<u32>,
}

impl Trie {
    pub(super) fn with_capacity(n_tokens: usize) -> Self {
        Self {
            edges: HashMap::with_capacity_and_hasher(2 * n_tokens, FxBuildHasher),
            ends: vec![0],
        }
    }

    /// Adds a token. If its bytes have an id already, returns that and changes nothing.
    pub(super) fn insert(&mut self, bytes: &[u8], id: u32) -> Option<u32> {
        let mut node = 0;
        for &byte in bytes {
            node = *self.edges.entry(key(node, byte)).or_insert_with(|| {
                self.ends.push(0);
                (self.ends.len() - 1) as u32
            });
        }
        let end = &mut self.ends[node as usize];
        if *end != 0 {
            return Some(*end);
        }
        *end = id;
        None
    }

    /// The longest token that `bytes` starts with, and its length.
    pub(super) fn longest_prefix(&self, bytes: &[u8]) -> Option<(u32, usize)> {
        let mut node = 0;
        let mut longest = None;
        for (index, &byte) in bytes.iter().enumerate() {
            match self.edges.get(&key(node, byte)) {
                Some(&below) => node = below,
                None => break,
            }
            let id = self.ends[node as usize];
            if id != 0 {
                longest = Some((id, index + 1));
            }
        }
        longest
    }
}

fn key(node: u32, byte: u8) -> u32 {
    debug_assert!(node < 1 << 24);
    node << 8 | u32::from(byte)
}
