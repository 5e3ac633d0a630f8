//! `wasi:filesystem`: no directory is open to a component.

use crate::link::bindings::wasi::filesystem::{preopens, types};
use crate::runtime::State;
use crate::wasi::io::{InputStream, IoError, OutputStream, StreamError};
use alloc::string::String;
use alloc::vec::Vec;
pub use types::ErrorCode;
use wasmtime::Result;
use wasmtime::component::{Resource, ResourceTableError};

/// Bytes that one write to a file may have.
pub const PERMIT: usize = 1 << 20;

/// A file or a directory; there are none.
pub enum Descriptor {}
/// The rest of a directory; there are none.
pub enum Entries {}
/// A file that is read; there are none.
pub enum Reading {}
/// A file that is written; there are none.
pub enum Writing {}

impl Reading {
    /// Reads at most `most` bytes.
    pub fn read(&mut self, _: usize) -> core::result::Result<Vec<u8>, StreamError> {
        match *self {}
    }
}

impl Writing {
    /// Writes all bytes.
    pub fn write(&mut self, _: &[u8]) -> core::result::Result<(), StreamError> {
        match *self {}
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

type FsResult<T> = core::result::Result<T, FsError>;

/// Methods of resources that nobody can have.
macro_rules! refused {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {
        $(fn $name(&mut self, $(_: $argument),*) -> FsResult<$result> { Err(FsError::Code(ErrorCode::BadDescriptor)) })*
    };
}

impl preopens::Host for State {
    fn get_directories(&mut self) -> Result<Vec<(Resource<Descriptor>, String)>> {
        Ok(Vec::new())
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
    refused! { read_directory_entry(Resource<Entries>) -> Option<types::DirectoryEntry>; }

    fn drop(&mut self, entries: Resource<Entries>) -> Result<()> {
        self.table.delete(entries)?;
        Ok(())
    }
}

impl types::HostDescriptor for State {
    refused! {
        read_via_stream(Resource<Descriptor>, u64) -> Resource<InputStream>;
        write_via_stream(Resource<Descriptor>, u64) -> Resource<OutputStream>;
        append_via_stream(Resource<Descriptor>) -> Resource<OutputStream>;
        advise(Resource<Descriptor>, u64, u64, types::Advice) -> ();
        sync_data(Resource<Descriptor>) -> ();
        get_flags(Resource<Descriptor>) -> types::DescriptorFlags;
        get_type(Resource<Descriptor>) -> types::DescriptorType;
        set_size(Resource<Descriptor>, u64) -> ();
        set_times(Resource<Descriptor>, types::NewTimestamp, types::NewTimestamp) -> ();
        read(Resource<Descriptor>, u64, u64) -> (Vec<u8>, bool);
        write(Resource<Descriptor>, Vec<u8>, u64) -> u64;
        read_directory(Resource<Descriptor>) -> Resource<Entries>;
        sync(Resource<Descriptor>) -> ();
        create_directory_at(Resource<Descriptor>, String) -> ();
        stat(Resource<Descriptor>) -> types::DescriptorStat;
        stat_at(Resource<Descriptor>, types::PathFlags, String) -> types::DescriptorStat;
        set_times_at(Resource<Descriptor>, types::PathFlags, String, types::NewTimestamp, types::NewTimestamp) -> ();
        link_at(Resource<Descriptor>, types::PathFlags, String, Resource<Descriptor>, String) -> ();
        open_at(Resource<Descriptor>, types::PathFlags, String, types::OpenFlags, types::DescriptorFlags)
            -> Resource<Descriptor>;
        readlink_at(Resource<Descriptor>, String) -> String;
        remove_directory_at(Resource<Descriptor>, String) -> ();
        rename_at(Resource<Descriptor>, String, Resource<Descriptor>, String) -> ();
        symlink_at(Resource<Descriptor>, String, String) -> ();
        unlink_file_at(Resource<Descriptor>, String) -> ();
        metadata_hash(Resource<Descriptor>) -> types::MetadataHashValue;
        metadata_hash_at(Resource<Descriptor>, types::PathFlags, String) -> types::MetadataHashValue;
    }

    fn is_same_object(&mut self, _: Resource<Descriptor>, _: Resource<Descriptor>) -> Result<bool> {
        Ok(false)
    }

    fn drop(&mut self, descriptor: Resource<Descriptor>) -> Result<()> {
        self.table.delete(descriptor)?;
        Ok(())
    }
}
