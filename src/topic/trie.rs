//! Topic Filters with wildcards, by level.
//!
//! One trie holds what is subscribed here, the share groups and what other shards want. A node has its `+` and `#`
//! child at hand; its literal children are found in one hash table by (parent, level), so that a node costs the same
//! whether it has one child or a million. Matching keeps the nodes that the levels so far lead to and goes on level by
//! level: no recursion, and no more nodes are looked at than there are stored prefixes that match (times two, for the
//! literal children that are not there).

use slab::Slab;

use super::filter::open_to_wildcards;
use super::remote::SetRef;
use super::text::Text;
use super::{NONE, TextHasher};
use crate::memory::Table;

#[derive(Debug)]
pub(super) struct Trie {
    nodes: Slab<Node>,
    edges: Table,
    /// Bytes of levels that do not lie in their node.
    apart: usize,
    hasher: TextHasher,
    /// Kept between calls for its memory only.
    here: Vec<u32>,
    next: Vec<u32>,
    /// Nodes looked at by all matches so far.
    #[cfg(test)]
    pub(super) visits: u64,
}

/// A prefix of some filter; with something in one of the last three fields, a whole filter.
#[derive(Debug)]
pub(super) struct Node {
    parent: u32,
    plus: u32,
    hash: u32,
    literals: u32,
    /// The filter that is subscribed to here.
    pub(super) own: u32,
    /// The first share group with this filter.
    pub(super) groups: u32,
    /// The other shards with a subscriber.
    pub(super) remote: SetRef,
    level: Level,
}

const _: () = assert!(size_of::<Node>() == 56);

/// The last level of a node's prefix.
#[derive(Debug)]
enum Level {
    Root,
    Plus,
    Hash,
    Literal(Text<{ Level::SHORT_MAX }>),
}

impl Level {
    const SHORT_MAX: usize = 22;

    fn new(text: &str) -> Level {
        match text {
            "+" => Level::Plus,
            "#" => Level::Hash,
            _ => Level::Literal(Text::new(text)),
        }
    }

    /// Bytes that do not lie in the node.
    fn apart(&self) -> usize {
        match self {
            Level::Literal(text) => text.apart(),
            Level::Root | Level::Plus | Level::Hash => 0,
        }
    }

    /// The text of a literal level.
    fn literal(&self) -> Option<&[u8]> {
        match self {
            Level::Literal(text) => Some(text.as_bytes()),
            Level::Root | Level::Plus | Level::Hash => None,
        }
    }
}

const ROOT: u32 = 0;

/// A node and its place in the table of edges, of which half are empty.
pub(super) const NODE_BYTES: usize = size_of::<Node>() + 16;

impl Trie {
    pub(super) fn new(hasher: TextHasher) -> Trie {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(NONE, Level::Root));
        Trie {
            nodes,
            edges: Table::default(),
            apart: 0,
            hasher,
            here: Vec::new(),
            next: Vec::new(),
            #[cfg(test)]
            visits: 0,
        }
    }

    pub(super) fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    pub(super) fn node_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// The node of `filter`, made if it is not there. The caller puts something into it.
    pub(super) fn insert(&mut self, filter: &str) -> u32 {
        filter.split('/').fold(ROOT, |parent, text| match self.child(parent, text) {
            NONE => self.grow(parent, text),
            child => child,
        })
    }

    /// The node of `filter`.
    pub(super) fn find(&self, filter: &str) -> Option<u32> {
        let node = filter.split('/').try_fold(ROOT, |parent, text| match self.child(parent, text) {
            NONE => None,
            child => Some(child),
        })?;
        self.node(node).is_filter().then_some(node)
    }

    /// Cuts off `node`, and what led only to it, if nothing is in it and nothing goes through it.
    pub(super) fn prune(&mut self, mut node: u32) {
        while node != ROOT && self.node(node).is_bare() {
            let Node { parent, level, .. } = self.nodes.remove(node as usize);
            self.apart -= level.apart();
            match &level {
                Level::Plus => self.node_mut(parent).plus = NONE,
                Level::Hash => self.node_mut(parent).hash = NONE,
                literal => {
                    let text = literal.literal().unwrap_or_default();
                    let edge = self.edge(parent, self.level_hash(text));
                    self.edges.remove(edge, node);
                    self.node_mut(parent).literals -= 1;
                }
            }
            node = parent;
        }
    }

    /// Appends the nodes of all filters that match `topic` to `found`; those of one level may come in any order that
    /// follows from the filters.
    pub(super) fn matches(&mut self, topic: &str, found: &mut Vec<u32>) {
        let mut here = std::mem::take(&mut self.here);
        let mut next = std::mem::take(&mut self.next);
        here.clear();
        here.push(ROOT);
        let mut wildcards = open_to_wildcards(topic); // [MQTT-4.7.2-1]
        for text in topic.split('/') {
            let hash = self.level_hash(text.as_bytes());
            next.clear();
            for &at in &here {
                let node = self.node(at);
                if wildcards {
                    found.extend((node.hash != NONE).then_some(node.hash));
                    next.extend((node.plus != NONE).then_some(node.plus));
                }
                if node.literals > 0 {
                    let child = self.literal(at, hash, text.as_bytes());
                    next.extend((child != NONE).then_some(child));
                }
            }
            #[cfg(test)]
            {
                self.visits += here.len() as u64;
            }
            std::mem::swap(&mut here, &mut next);
            if here.is_empty() {
                break;
            }
            wildcards = true;
        }
        for &at in &here {
            let node = self.node(at);
            found.extend(node.is_filter().then_some(at));
            // The parent of `#` matches too.
            found.extend((node.hash != NONE).then_some(node.hash));
        }
        (self.here, self.next) = (here, next);
    }

    pub(super) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.edges.bytes()
    }

    /// Bytes in use; the root, which is always there, is not counted.
    pub(super) fn kept_bytes(&self) -> usize {
        (self.nodes.len() - 1) * NODE_BYTES + self.apart
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn child(&self, parent: u32, text: &str) -> u32 {
        match text {
            "+" => self.node(parent).plus,
            "#" => self.node(parent).hash,
            _ => self.literal(parent, self.level_hash(text.as_bytes()), text.as_bytes()),
        }
    }

    fn literal(&self, parent: u32, hash: u64, text: &[u8]) -> u32 {
        let same = |child: u32| {
            let child = self.node(child);
            child.parent == parent && child.level.literal() == Some(text)
        };
        self.edges.find(self.edge(parent, hash), same).unwrap_or(NONE)
    }

    fn grow(&mut self, parent: u32, text: &str) -> u32 {
        let level = Level::new(text);
        self.apart += level.apart();
        let child = self.nodes.insert(Node::new(parent, level)) as u32;
        match text {
            "+" => self.node_mut(parent).plus = child,
            "#" => self.node_mut(parent).hash = child,
            _ => {
                let edge = self.edge(parent, self.level_hash(text.as_bytes()));
                self.edges.insert(edge, child);
                self.node_mut(parent).literals += 1;
            }
        }
        child
    }

    fn level_hash(&self, text: &[u8]) -> u64 {
        self.hasher.bytes(text)
    }

    /// One hash for a level serves all parents; consecutive parents spread over the whole table.
    fn edge(&self, parent: u32, level_hash: u64) -> u64 {
        level_hash ^ u64::from(parent).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

impl Node {
    fn new(parent: u32, level: Level) -> Node {
        Node {
            parent,
            plus: NONE,
            hash: NONE,
            literals: 0,
            own: NONE,
            groups: NONE,
            remote: SetRef::EMPTY,
            level,
        }
    }

    fn is_filter(&self) -> bool {
        self.own != NONE || self.groups != NONE || self.remote != SetRef::EMPTY
    }

    fn is_bare(&self) -> bool {
        !self.is_filter() && self.plus == NONE && self.hash == NONE && self.literals == 0
    }
}
