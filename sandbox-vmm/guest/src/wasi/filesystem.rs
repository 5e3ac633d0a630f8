//! `wasi:filesystem`: no directory is open to a component, unless its deployment asked for a scratch directory.

use crate::link::bindings::wasi::clocks::wall_clock::Datetime;
use crate::link::bindings::wasi::filesystem::{preopens, types};
use crate::runtime::State;
use crate::wasi::io::{InputStream, IoError, OutputStream, StreamError};
use crate::wasi::scratch::{Content, NodeId, Scratch, now};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
pub use types::ErrorCode;
use types::{
    DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, MetadataHashValue,
    NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime::Result;
use wasmtime::component::{Resource, ResourceTableError};

/// Bytes that one write to a file may have, and that one read gives at most.
pub const PERMIT: usize = 1 << 20;

/// `descriptor`: a file or a directory.
pub struct Descriptor {
    node: NodeId,
    flags: DescriptorFlags,
}

/// `directory-entry-stream`.
pub struct Entries(VecDeque<DirectoryEntry>);

/// A file that is read from a position on.
pub struct Reading {
    node: NodeId,
    at: u64,
}

/// A file that is written from a position on, or at its end.
pub struct Writing {
    node: NodeId,
    at: Option<u64>,
}

fn stream_error(code: ErrorCode) -> StreamError {
    StreamError::Failed(IoError {
        text: format!("{code:?}"),
        http: None,
        file: Some(code),
    })
}

impl State {
    fn scratch(&mut self) -> FsResult<&mut Scratch> {
        self.scratch
            .as_deref_mut()
            .ok_or(FsError::Code(ErrorCode::BadDescriptor))
    }

    /// Reads on; an end of the file is the end of the stream.
    pub fn read_file(
        &mut self,
        stream: &Resource<InputStream>,
        most: usize,
    ) -> core::result::Result<Vec<u8>, StreamError> {
        let InputStream::File(file) = self.table.get_mut(stream)? else {
            return Err(StreamError::Closed);
        };
        let Some(scratch) = &mut self.scratch else {
            return Err(StreamError::Closed);
        };
        let bytes = scratch
            .read(file.node, file.at, most.min(PERMIT))
            .map_err(stream_error)?;
        if bytes.is_empty() && most > 0 {
            return Err(StreamError::Closed);
        }
        file.at += bytes.len() as u64;
        Ok(bytes)
    }

    /// Writes on.
    pub fn write_file(
        &mut self,
        stream: &Resource<OutputStream>,
        bytes: &[u8],
    ) -> core::result::Result<(), StreamError> {
        let OutputStream::File(file) = self.table.get_mut(stream)? else {
            return Err(StreamError::Closed);
        };
        let Some(scratch) = &mut self.scratch else {
            return Err(StreamError::Closed);
        };
        let at = match file.at {
            Some(at) => at,
            None => scratch.len(file.node).map_err(stream_error)?,
        };
        scratch.write(file.node, at, bytes).map_err(stream_error)?;
        if let Some(at) = &mut file.at {
            *at += bytes.len() as u64;
        }
        Ok(())
    }

    /// The node of a descriptor, if it may be used in this way.
    fn node(&self, descriptor: &Resource<Descriptor>, need: DescriptorFlags) -> FsResult<NodeId> {
        let descriptor = self.table.get(descriptor)?;
        if descriptor.flags.contains(need) {
            return Ok(descriptor.node);
        }
        let code = if need == DescriptorFlags::MUTATE_DIRECTORY {
            ErrorCode::NotPermitted
        } else {
            ErrorCode::BadDescriptor
        };
        Err(FsError::Code(code))
    }

    fn describe(&mut self, node: NodeId) -> FsResult<DescriptorStat> {
        let node = self.scratch()?.node(node)?;
        let (kind, size) = kind(&node.content);
        let [read, changed] = node.times;
        Ok(DescriptorStat {
            type_: kind,
            link_count: 1,
            size,
            data_access_timestamp: Some(read),
            data_modification_timestamp: Some(changed),
            status_change_timestamp: Some(changed),
        })
    }

    fn stamp(&mut self, node: NodeId, read: NewTimestamp, changed: NewTimestamp) -> FsResult<()> {
        let times = &mut self.scratch()?.node_mut(node)?.times;
        for (time, new) in times.iter_mut().zip([read, changed]) {
            match new {
                NewTimestamp::NoChange => {}
                NewTimestamp::Now => *time = now(),
                NewTimestamp::Timestamp(Datetime {
                    seconds,
                    nanoseconds,
                }) => {
                    *time = Datetime {
                        seconds,
                        nanoseconds,
                    }
                }
            }
        }
        Ok(())
    }
}

fn kind(content: &Content) -> (DescriptorType, u64) {
    match content {
        Content::Directory(_) => (DescriptorType::Directory, 0),
        Content::File(bytes) => (DescriptorType::RegularFile, bytes.len() as u64),
    }
}

fn hash(node: NodeId) -> MetadataHashValue {
    MetadataHashValue {
        lower: node as u64,
        upper: 0,
    }
}

/// How a call fails.
#[derive(Debug)]
pub enum FsError {
    /// The component is told.
    Code(ErrorCode),
    /// The component broke a rule.
    Trap(wasmtime::Error),
}

impl From<ResourceTableError> for FsError {
    fn from(e: ResourceTableError) -> Self {
        FsError::Trap(e.into())
    }
}

impl From<ErrorCode> for FsError {
    fn from(code: ErrorCode) -> Self {
        FsError::Code(code)
    }
}

type FsResult<T> = core::result::Result<T, FsError>;

impl preopens::Host for State {
    fn get_directories(&mut self) -> Result<Vec<(Resource<Descriptor>, String)>> {
        if self.settings.limits.scratch_bytes == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.settings.limits.scratch_bytes;
        self.scratch
            .get_or_insert_with(|| alloc::boxed::Box::new(Scratch::new(bytes)))
            .hold(0);
        let flags =
            DescriptorFlags::READ | DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY;
        let root = self.table.push(Descriptor { node: 0, flags })?;
        Ok(vec![(root, String::from("/"))])
    }
}

impl types::Host for State {
    fn convert_error_code(&mut self, error: FsError) -> Result<ErrorCode> {
        match error {
            FsError::Code(code) => Ok(code),
            FsError::Trap(e) => Err(e),
        }
    }

    fn filesystem_error_code(&mut self, error: Resource<IoError>) -> Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.file)
    }
}

impl types::HostDirectoryEntryStream for State {
    fn read_directory_entry(
        &mut self,
        entries: Resource<Entries>,
    ) -> FsResult<Option<DirectoryEntry>> {
        Ok(self.table.get_mut(&entries)?.0.pop_front())
    }

    fn drop(&mut self, entries: Resource<Entries>) -> Result<()> {
        self.table.delete(entries)?;
        Ok(())
    }
}

impl types::HostDescriptor for State {
    fn read_via_stream(
        &mut self,
        file: Resource<Descriptor>,
        offset: u64,
    ) -> FsResult<Resource<InputStream>> {
        let node = self.node(&file, DescriptorFlags::READ)?;
        self.scratch()?.len(node)?;
        self.scratch()?.hold(node);
        Ok(self
            .table
            .push(InputStream::File(Reading { node, at: offset }))?)
    }

    fn write_via_stream(
        &mut self,
        file: Resource<Descriptor>,
        offset: u64,
    ) -> FsResult<Resource<OutputStream>> {
        let node = self.node(&file, DescriptorFlags::WRITE)?;
        self.scratch()?.len(node)?;
        self.scratch()?.hold(node);
        Ok(self.table.push(OutputStream::File(Writing {
            node,
            at: Some(offset),
        }))?)
    }

    fn append_via_stream(
        &mut self,
        file: Resource<Descriptor>,
    ) -> FsResult<Resource<OutputStream>> {
        let node = self.node(&file, DescriptorFlags::WRITE)?;
        self.scratch()?.len(node)?;
        self.scratch()?.hold(node);
        Ok(self
            .table
            .push(OutputStream::File(Writing { node, at: None }))?)
    }

    fn advise(
        &mut self,
        file: Resource<Descriptor>,
        _: u64,
        _: u64,
        _: types::Advice,
    ) -> FsResult<()> {
        let node = self.node(&file, DescriptorFlags::empty())?;
        self.scratch()?
            .len(node)
            .map_err(|_| ErrorCode::BadDescriptor)?;
        Ok(())
    }

    fn sync_data(&mut self, file: Resource<Descriptor>) -> FsResult<()> {
        self.node(&file, DescriptorFlags::empty()).map(|_| ())
    }

    fn sync(&mut self, file: Resource<Descriptor>) -> FsResult<()> {
        self.node(&file, DescriptorFlags::empty()).map(|_| ())
    }

    fn get_flags(&mut self, file: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        Ok(self.table.get(&file)?.flags)
    }

    fn get_type(&mut self, file: Resource<Descriptor>) -> FsResult<DescriptorType> {
        let node = self.node(&file, DescriptorFlags::empty())?;
        Ok(kind(&self.scratch()?.node(node)?.content).0)
    }

    fn set_size(&mut self, file: Resource<Descriptor>, size: u64) -> FsResult<()> {
        let node = self.node(&file, DescriptorFlags::WRITE)?;
        Ok(self.scratch()?.resize(node, size)?)
    }

    fn set_times(
        &mut self,
        file: Resource<Descriptor>,
        read: NewTimestamp,
        changed: NewTimestamp,
    ) -> FsResult<()> {
        let node = self.node(&file, DescriptorFlags::empty())?;
        self.stamp(node, read, changed)
    }

    fn read(
        &mut self,
        file: Resource<Descriptor>,
        length: u64,
        offset: u64,
    ) -> FsResult<(Vec<u8>, bool)> {
        let node = self.node(&file, DescriptorFlags::READ)?;
        let most = usize::try_from(length).unwrap_or(usize::MAX).min(PERMIT);
        let scratch = self.scratch()?;
        let bytes = scratch.read(node, offset, most)?;
        let end = offset.saturating_add(bytes.len() as u64) >= scratch.len(node)?;
        Ok((bytes, end))
    }

    fn write(&mut self, file: Resource<Descriptor>, buffer: Vec<u8>, offset: u64) -> FsResult<u64> {
        let node = self.node(&file, DescriptorFlags::WRITE)?;
        self.scratch()?.write(node, offset, &buffer)?;
        Ok(buffer.len() as u64)
    }

    fn read_directory(&mut self, directory: Resource<Descriptor>) -> FsResult<Resource<Entries>> {
        let node = self.node(&directory, DescriptorFlags::READ)?;
        let scratch = self.scratch()?;
        let mut list = VecDeque::new();
        for (name, id) in scratch.entries(node)? {
            list.push_back(DirectoryEntry {
                type_: kind(&scratch.node(*id)?.content).0,
                name: name.clone(),
            });
        }
        Ok(self.table.push(Entries(list))?)
    }

    fn create_directory_at(
        &mut self,
        directory: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let node = self.node(&directory, DescriptorFlags::MUTATE_DIRECTORY)?;
        self.scratch()?
            .create(node, &path, Content::Directory(Default::default()))?;
        Ok(())
    }

    fn stat(&mut self, file: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        let node = self.node(&file, DescriptorFlags::empty())?;
        self.describe(node)
    }

    fn stat_at(
        &mut self,
        directory: Resource<Descriptor>,
        _: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        let node = self.node(&directory, DescriptorFlags::empty())?;
        let node = self.scratch()?.find(node, &path)?;
        self.describe(node)
    }

    fn set_times_at(
        &mut self,
        directory: Resource<Descriptor>,
        _: PathFlags,
        path: String,
        read: NewTimestamp,
        changed: NewTimestamp,
    ) -> FsResult<()> {
        let node = self.node(&directory, DescriptorFlags::MUTATE_DIRECTORY)?;
        let node = self.scratch()?.find(node, &path)?;
        self.stamp(node, read, changed)
    }

    fn link_at(
        &mut self,
        _: Resource<Descriptor>,
        _: PathFlags,
        _: String,
        _: Resource<Descriptor>,
        _: String,
    ) -> FsResult<()> {
        Err(ErrorCode::Unsupported.into())
    }

    fn open_at(
        &mut self,
        directory: Resource<Descriptor>,
        _: PathFlags,
        path: String,
        open: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let from = self.node(&directory, DescriptorFlags::empty())?;
        let parent = self.table.get(&directory)?.flags;
        let changes = open.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE)
            || flags.intersects(DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY);
        if changes && !parent.contains(DescriptorFlags::MUTATE_DIRECTORY) {
            return Err(ErrorCode::NotPermitted.into());
        }
        let scratch = self.scratch()?;
        let found = scratch.find(from, &path);
        let node = match found {
            Ok(_) if open.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE) => {
                return Err(ErrorCode::Exist.into());
            }
            Err(ErrorCode::NoEntry)
                if open.contains(OpenFlags::CREATE) && !open.contains(OpenFlags::DIRECTORY) =>
            {
                scratch.create(from, &path, Content::File(Vec::new()))?
            }
            found => found?,
        };
        let is_directory = matches!(scratch.node(node)?.content, Content::Directory(_));
        if open.contains(OpenFlags::DIRECTORY) && !is_directory {
            return Err(ErrorCode::NotDirectory.into());
        }
        if is_directory
            && (open.contains(OpenFlags::TRUNCATE) || flags.contains(DescriptorFlags::WRITE))
        {
            return Err(ErrorCode::IsDirectory.into());
        }
        if open.contains(OpenFlags::TRUNCATE) {
            scratch.resize(node, 0)?;
        }
        scratch.hold(node);
        Ok(self.table.push(Descriptor { node, flags })?)
    }

    fn readlink_at(&mut self, directory: Resource<Descriptor>, path: String) -> FsResult<String> {
        let node = self.node(&directory, DescriptorFlags::empty())?;
        self.scratch()?.find(node, &path)?;
        Err(ErrorCode::Invalid.into())
    }

    fn remove_directory_at(
        &mut self,
        directory: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let node = self.node(&directory, DescriptorFlags::MUTATE_DIRECTORY)?;
        Ok(self.scratch()?.remove(node, &path, true)?)
    }

    fn rename_at(
        &mut self,
        directory: Resource<Descriptor>,
        path: String,
        new_directory: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let from = self.node(&directory, DescriptorFlags::MUTATE_DIRECTORY)?;
        let to = self.node(&new_directory, DescriptorFlags::MUTATE_DIRECTORY)?;
        Ok(self.scratch()?.rename(from, &path, to, &new_path)?)
    }

    fn symlink_at(&mut self, _: Resource<Descriptor>, _: String, _: String) -> FsResult<()> {
        Err(ErrorCode::Unsupported.into())
    }

    fn unlink_file_at(&mut self, directory: Resource<Descriptor>, path: String) -> FsResult<()> {
        let node = self.node(&directory, DescriptorFlags::MUTATE_DIRECTORY)?;
        Ok(self.scratch()?.remove(node, &path, false)?)
    }

    fn is_same_object(
        &mut self,
        one: Resource<Descriptor>,
        other: Resource<Descriptor>,
    ) -> Result<bool> {
        Ok(self.table.get(&one)?.node == self.table.get(&other)?.node)
    }

    fn metadata_hash(&mut self, file: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        Ok(hash(self.node(&file, DescriptorFlags::empty())?))
    }

    fn metadata_hash_at(
        &mut self,
        directory: Resource<Descriptor>,
        _: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let node = self.node(&directory, DescriptorFlags::empty())?;
        Ok(hash(self.scratch()?.find(node, &path)?))
    }

    fn drop(&mut self, file: Resource<Descriptor>) -> Result<()> {
        let file = self.table.delete(file)?;
        if let Some(scratch) = &mut self.scratch {
            scratch.release(file.node);
        }
        Ok(())
    }
}

impl State {
    /// The end of a stream over a file.
    pub fn close_file(&mut self, node: NodeId) {
        if let Some(scratch) = &mut self.scratch {
            scratch.release(node);
        }
    }
}

impl Reading {
    /// The file.
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl Writing {
    /// The file.
    pub fn node(&self) -> NodeId {
        self.node
    }
}
