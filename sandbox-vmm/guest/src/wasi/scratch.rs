//! A directory in memory that lives as long as its request, for deployments that ask for one. It has files and
//! directories, no links.

use crate::kernel::time;
use crate::link::bindings::wasi::clocks::wall_clock::Datetime;
use crate::wasi::filesystem::ErrorCode;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// What a file or directory counts beyond its bytes.
const NODE_COST: u64 = 256;
/// Most bytes of a name.
const LONGEST_NAME: usize = 255;

/// A file or directory, by number.
pub type NodeId = usize;

type Result<T> = core::result::Result<T, ErrorCode>;

/// What a node holds.
pub enum Content {
    /// Entries by name.
    Directory(BTreeMap<String, NodeId>),
    /// Bytes.
    File(Vec<u8>),
}

/// A file or directory.
pub struct Node {
    /// What it holds.
    pub content: Content,
    /// When it was read, and when it was changed.
    pub times: [Datetime; 2],
    parent: NodeId,
    named: bool,
    open: u32,
}

/// The tree. Node 0 is its root.
pub struct Scratch {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    /// Bytes that may still be used.
    left: u64,
}

/// The wall clock.
pub fn now() -> Datetime {
    let (seconds, nanoseconds) = time::wall_clock();
    Datetime {
        seconds,
        nanoseconds,
    }
}

/// The last name of a path and the directory that holds it, or the directory itself that the path names.
enum Place<'a> {
    Entry(NodeId, &'a str, bool),
    Itself(NodeId),
}

impl Scratch {
    /// An empty directory of at most `bytes`.
    pub fn new(bytes: u64) -> Scratch {
        let mut scratch = Scratch {
            nodes: Vec::new(),
            free: Vec::new(),
            left: bytes,
        };
        scratch.nodes.push(Node {
            content: Content::Directory(BTreeMap::new()),
            times: [now(); 2],
            parent: 0,
            named: true,
            open: 0,
        });
        scratch
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Result<&Node> {
        self.nodes.get(id).ok_or(ErrorCode::BadDescriptor)
    }

    /// A node to change.
    pub fn node_mut(&mut self, id: NodeId) -> Result<&mut Node> {
        self.nodes.get_mut(id).ok_or(ErrorCode::BadDescriptor)
    }

    /// The entries of a directory.
    pub fn entries(&self, id: NodeId) -> Result<&BTreeMap<String, NodeId>> {
        match &self.node(id)?.content {
            Content::Directory(entries) => Ok(entries),
            Content::File(_) => Err(ErrorCode::NotDirectory),
        }
    }

    fn entries_mut(&mut self, id: NodeId) -> Result<&mut BTreeMap<String, NodeId>> {
        let node = self.node_mut(id)?;
        node.times[1] = now();
        match &mut node.content {
            Content::Directory(entries) => Ok(entries),
            Content::File(_) => Err(ErrorCode::NotDirectory),
        }
    }

    fn bytes(&self, id: NodeId) -> Result<&Vec<u8>> {
        match &self.node(id)?.content {
            Content::File(bytes) => Ok(bytes),
            Content::Directory(_) => Err(ErrorCode::IsDirectory),
        }
    }

    /// Walks `path` from the directory `from`, which it may not leave.
    fn place<'a>(&self, from: NodeId, path: &'a str) -> Result<Place<'a>> {
        if path.is_empty() {
            return Err(ErrorCode::NoEntry);
        }
        if path.starts_with('/') {
            return Err(ErrorCode::NotPermitted);
        }
        if path.contains('\0') {
            return Err(ErrorCode::IllegalByteSequence);
        }
        let slash = path.ends_with('/');
        let mut at = from;
        let mut names = path
            .split('/')
            .filter(|n| !n.is_empty() && *n != ".")
            .peekable();
        while let Some(name) = names.next() {
            let entries = self.entries(at)?;
            if name == ".." {
                if at == from {
                    return Err(ErrorCode::NotPermitted);
                }
                at = self.node(at)?.parent;
            } else if name.len() > LONGEST_NAME {
                return Err(ErrorCode::NameTooLong);
            } else if names.peek().is_none() {
                return Ok(Place::Entry(at, name, slash));
            } else {
                at = *entries.get(name).ok_or(ErrorCode::NoEntry)?;
            }
        }
        Ok(Place::Itself(at))
    }

    /// What `path` names, if it is there.
    pub fn find(&self, from: NodeId, path: &str) -> Result<NodeId> {
        match self.place(from, path)? {
            Place::Itself(id) => Ok(id),
            Place::Entry(directory, name, slash) => {
                let id = *self
                    .entries(directory)?
                    .get(name)
                    .ok_or(ErrorCode::NoEntry)?;
                if slash {
                    self.entries(id)?;
                }
                Ok(id)
            }
        }
    }

    /// Makes a file or a directory where nothing is.
    pub fn create(&mut self, from: NodeId, path: &str, content: Content) -> Result<NodeId> {
        let Place::Entry(directory, name, slash) = self.place(from, path)? else {
            return Err(ErrorCode::Exist);
        };
        if self.entries(directory)?.contains_key(name) {
            return Err(ErrorCode::Exist);
        }
        if slash && matches!(content, Content::File(_)) {
            return Err(ErrorCode::IsDirectory);
        }
        self.left = self
            .left
            .checked_sub(NODE_COST + name.len() as u64)
            .ok_or(ErrorCode::InsufficientSpace)?;
        let node = Node {
            content,
            times: [now(); 2],
            parent: directory,
            named: true,
            open: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                *self.node_mut(id)? = node;
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.entries_mut(directory)?.insert(String::from(name), id);
        Ok(id)
    }

    /// Removes a name: of an empty directory, or of a file.
    pub fn remove(&mut self, from: NodeId, path: &str, directory: bool) -> Result<()> {
        let Place::Entry(parent, name, _) = self.place(from, path)? else {
            return Err(ErrorCode::Invalid);
        };
        let id = *self.entries(parent)?.get(name).ok_or(ErrorCode::NoEntry)?;
        match &self.node(id)?.content {
            Content::Directory(_) if !directory => return Err(ErrorCode::IsDirectory),
            Content::Directory(entries) if !entries.is_empty() => return Err(ErrorCode::NotEmpty),
            Content::File(_) if directory => return Err(ErrorCode::NotDirectory),
            _ => {}
        }
        self.unname(parent, name)
    }

    fn unname(&mut self, parent: NodeId, name: &str) -> Result<()> {
        if let Some(id) = self.entries_mut(parent)?.remove(name) {
            self.left += NODE_COST + name.len() as u64;
            self.node_mut(id)?.named = false;
            self.collect(id)?;
        }
        Ok(())
    }

    /// Frees a node that has neither a name nor a user.
    fn collect(&mut self, id: NodeId) -> Result<()> {
        let node = self.node_mut(id)?;
        if !node.named && node.open == 0 {
            if let Content::File(bytes) =
                core::mem::replace(&mut node.content, Content::File(Vec::new()))
            {
                self.left += bytes.len() as u64;
            }
            self.free.push(id);
        }
        Ok(())
    }

    /// Moves a name; what had the new name is replaced.
    pub fn rename(&mut self, from: NodeId, path: &str, to: NodeId, new_path: &str) -> Result<()> {
        let Place::Entry(old, name, _) = self.place(from, path)? else {
            return Err(ErrorCode::Busy);
        };
        let Place::Entry(new, new_name, slash) = self.place(to, new_path)? else {
            return Err(ErrorCode::Busy);
        };
        let id = *self.entries(old)?.get(name).ok_or(ErrorCode::NoEntry)?;
        let is_directory = matches!(self.node(id)?.content, Content::Directory(_));
        if slash && !is_directory {
            return Err(ErrorCode::NotDirectory);
        }
        let mut above = new;
        while above != 0 {
            if above == id {
                return Err(ErrorCode::Invalid);
            }
            above = self.node(above)?.parent;
        }
        if let Some(replaced) = self.entries(new)?.get(new_name).copied() {
            if replaced == id {
                return Ok(());
            }
            match &self.node(replaced)?.content {
                Content::Directory(_) if !is_directory => return Err(ErrorCode::IsDirectory),
                Content::Directory(entries) if !entries.is_empty() => {
                    return Err(ErrorCode::NotEmpty);
                }
                Content::File(_) if is_directory => return Err(ErrorCode::NotDirectory),
                _ => {}
            }
            self.unname(new, new_name)?;
        }
        let longer = (new_name.len() as u64).saturating_sub(name.len() as u64);
        self.left = self
            .left
            .checked_sub(longer)
            .ok_or(ErrorCode::InsufficientSpace)?;
        self.left += (name.len() as u64).saturating_sub(new_name.len() as u64);
        self.entries_mut(old)?.remove(name);
        self.entries_mut(new)?.insert(String::from(new_name), id);
        self.node_mut(id)?.parent = new;
        Ok(())
    }

    /// Counts a user of a node, so that it outlives its name.
    pub fn hold(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.open += 1;
        }
    }

    /// The end of a use.
    pub fn release(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.open = node.open.saturating_sub(1);
        }
        let _ = self.collect(id);
    }

    /// Reads at most `most` bytes from `offset`; none at the end.
    pub fn read(&mut self, id: NodeId, offset: u64, most: usize) -> Result<Vec<u8>> {
        self.node_mut(id)?.times[0] = now();
        let bytes = self.bytes(id)?;
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let end = start.saturating_add(most).min(bytes.len());
        Ok(bytes.get(start..end).unwrap_or_default().to_vec())
    }

    /// Bytes of a file.
    pub fn len(&self, id: NodeId) -> Result<u64> {
        Ok(self.bytes(id)?.len() as u64)
    }

    /// Makes a file longer or shorter.
    pub fn resize(&mut self, id: NodeId, len: u64) -> Result<()> {
        let old = self.len(id)?;
        self.left = (self.left + old)
            .checked_sub(len)
            .ok_or(ErrorCode::InsufficientSpace)?;
        let grown = self.set_len(id, len);
        if grown.is_err() {
            self.left = self.left + len - old;
        }
        grown
    }

    fn set_len(&mut self, id: NodeId, len: u64) -> Result<()> {
        let node = self.node_mut(id)?;
        node.times[1] = now();
        let Content::File(bytes) = &mut node.content else {
            return Err(ErrorCode::IsDirectory);
        };
        let len = usize::try_from(len).map_err(|_| ErrorCode::FileTooLarge)?;
        bytes
            .try_reserve(len.saturating_sub(bytes.len()))
            .map_err(|_| ErrorCode::InsufficientMemory)?;
        bytes.resize(len, 0);
        Ok(())
    }

    /// Writes bytes at `offset`; the file becomes as long as that needs.
    pub fn write(&mut self, id: NodeId, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(ErrorCode::FileTooLarge)?;
        if end > self.len(id)? && !bytes.is_empty() {
            self.resize(id, end)?;
        }
        let node = self.node_mut(id)?;
        node.times[1] = now();
        if let Content::File(content) = &mut node.content
            && let Some(to) = usize::try_from(offset)
                .ok()
                .and_then(|o| content.get_mut(o..)?.get_mut(..bytes.len()))
        {
            to.copy_from_slice(bytes);
        }
        Ok(())
    }
}
