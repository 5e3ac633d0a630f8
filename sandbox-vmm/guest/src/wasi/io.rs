//! `wasi:io`: errors, pollables, streams.
//!
//! Streams are enums, not trait objects: there are only so many kinds, and each call says what it does with each.

use crate::http::body::Body;
use crate::kernel::{sched, time};
use crate::link::bindings::wasi::http::types::ErrorCode;
use crate::link::bindings::wasi::io::{error, poll, streams};
use crate::runtime::State;
use crate::streams as exchanges;
use crate::wasi::filesystem;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use wasmtime::component::{Resource, ResourceTableError, WasmList};
use wasmtime::{AsContext, Result, StoreContextMut, ensure};

/// The bytes that `blocking-write-and-flush` takes at most.
const BLOCKING_WRITE: usize = 4096;
/// Bytes of a log that one write may have, and what `check-write` allows where nothing else does.
const PERMIT: usize = 64 << 10;
/// Most pollables in one call.
const LONGEST_POLL: usize = 64 << 10;
/// Bytes of one log record.
const LOG_RECORD: usize = 16 << 10;

/// A `wasi:io/error`.
#[derive(Clone, Debug)]
pub struct IoError {
    /// For humans.
    pub text: String,
    /// What `http-error-code` says of it.
    pub http: Option<ErrorCode>,
    /// What `filesystem-error-code` says of it.
    pub file: Option<filesystem::ErrorCode>,
}

/// How a stream's call fails.
#[derive(Debug)]
pub enum StreamError {
    /// The stream is closed.
    Closed,
    /// The operation failed.
    Failed(IoError),
    /// The component broke a rule, or has to end.
    Trap(wasmtime::Error),
}

impl From<wasmtime::Error> for StreamError {
    fn from(e: wasmtime::Error) -> Self {
        StreamError::Trap(e)
    }
}

impl From<ResourceTableError> for StreamError {
    fn from(e: ResourceTableError) -> Self {
        StreamError::Trap(e.into())
    }
}

type StreamResult<T> = core::result::Result<T, StreamError>;

/// What a component may wait for.
#[derive(Clone)]
pub enum Pollable {
    /// Nothing: ready.
    Ready,
    /// The monotonic clock to show this time.
    At(u64),
    /// Bytes, or the end, of an exchange's incoming body.
    Input(u32),
    /// Room for bytes of an outgoing body.
    Output(Body),
    /// The end of an exchange's incoming body, whose bytes nobody wants.
    Trailers(u32),
    /// The answer to an outgoing request.
    Response(u32),
}

impl Pollable {
    fn ready(&self) -> bool {
        match self {
            Pollable::Ready => true,
            Pollable::At(when) => time::monotonic_ns() >= *when,
            Pollable::Input(id) => exchanges::readable(*id),
            Pollable::Output(body) => body.writable(),
            Pollable::Trailers(id) => exchanges::discard(*id),
            Pollable::Response(id) => exchanges::answered(*id),
        }
    }

    fn deadline(&self) -> Option<u64> {
        match self {
            Pollable::At(when) => Some(*when),
            _ => None,
        }
    }
}

/// A `wasi:io/streams.input-stream`.
pub enum InputStream {
    /// Nothing to read.
    Closed,
    /// The body of an exchange.
    Body(u32),
    /// A file from a position on.
    File(filesystem::Reading),
}

/// A `wasi:io/streams.output-stream`.
pub enum OutputStream {
    /// The component's log, by descriptor.
    Log(u32),
    /// The body of an exchange.
    Body(Body),
    /// A file from a position on, or at its end.
    File(filesystem::Writing),
}

impl error::Host for State {}

impl error::HostError for State {
    fn to_debug_string(&mut self, error: Resource<IoError>) -> Result<String> {
        Ok(self.table.get(&error)?.text.clone())
    }

    fn drop(&mut self, error: Resource<IoError>) -> Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}

impl poll::Host for State {
    fn poll(&mut self, pollables: Vec<Resource<Pollable>>) -> Result<Vec<u32>> {
        ensure!(!pollables.is_empty(), "empty poll list");
        ensure!(
            pollables.len() <= LONGEST_POLL,
            "poll list of more than {LONGEST_POLL}"
        );
        let mut list = Vec::with_capacity(pollables.len());
        for pollable in &pollables {
            list.push(self.table.get(pollable)?.clone());
        }
        let deadline = list.iter().filter_map(Pollable::deadline).min();
        let mut ready = Vec::new();
        let mut first = true;
        self.wait(deadline, || {
            let mut other = false;
            for (n, pollable) in (0..).zip(&list) {
                if pollable.ready() {
                    other |= pollable.deadline().is_none();
                    ready.push(n);
                }
            }
            if core::mem::take(&mut first) && !ready.is_empty() && !other {
                // Only a timer: a component that looks again and again this way must not keep the others from running.
                ready.clear();
                sched::yield_now();
                for (n, pollable) in (0..).zip(&list) {
                    if pollable.ready() {
                        ready.push(n);
                    }
                }
            }
            !ready.is_empty()
        })?;
        Ok(ready)
    }
}

impl poll::HostPollable for State {
    fn ready(&mut self, pollable: Resource<Pollable>) -> Result<bool> {
        self.check()?;
        let pollable = self.table.get(&pollable)?.clone();
        if pollable.ready() {
            return Ok(true);
        }
        sched::yield_now();
        Ok(pollable.ready())
    }

    fn block(&mut self, pollable: Resource<Pollable>) -> Result<()> {
        let pollable = self.table.get(&pollable)?.clone();
        self.wait(pollable.deadline(), || pollable.ready())
    }

    fn drop(&mut self, pollable: Resource<Pollable>) -> Result<()> {
        self.table.delete(pollable)?;
        Ok(())
    }
}

impl streams::Host for State {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        match error {
            StreamError::Closed => Ok(streams::StreamError::Closed),
            StreamError::Failed(e) => Ok(streams::StreamError::LastOperationFailed(
                self.table.push(e)?,
            )),
            StreamError::Trap(e) => Err(e),
        }
    }
}

/// A length as the component gave it.
fn length(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl State {
    /// Reads without waiting; no bytes where there are none yet.
    fn read_some(&mut self, stream: &Resource<InputStream>, most: usize) -> StreamResult<Vec<u8>> {
        match self.table.get_mut(stream)? {
            InputStream::Closed => Err(StreamError::Closed),
            InputStream::File(_) => self.read_file(stream, most),
            InputStream::Body(id) => match exchanges::read(*id, most) {
                exchanges::Read::Data(bytes) => Ok(bytes),
                exchanges::Read::Wait => Ok(Vec::new()),
                exchanges::Read::End => Err(StreamError::Closed),
                exchanges::Read::Failed(failure) => {
                    // It is told once; after that the stream is closed.
                    *self.table.get_mut(stream)? = InputStream::Closed;
                    Err(StreamError::Failed(crate::http::codes::io_error(&failure)))
                }
            },
        }
    }

    fn read_waiting(
        &mut self,
        stream: &Resource<InputStream>,
        most: usize,
    ) -> StreamResult<Vec<u8>> {
        if let InputStream::Body(id) = self.table.get(stream)? {
            let id = *id;
            self.wait(None, || exchanges::readable(id))?;
        }
        self.read_some(stream, most)
    }

    /// What may be written now.
    fn permit(&mut self, stream: &Resource<OutputStream>) -> StreamResult<usize> {
        match self.table.get(stream)? {
            OutputStream::Log(_) => Ok(PERMIT),
            OutputStream::File(_) => Ok(filesystem::PERMIT),
            OutputStream::Body(body) => body.permit().ok_or(StreamError::Closed),
        }
    }

    fn permit_waiting(&mut self, stream: &Resource<OutputStream>) -> StreamResult<usize> {
        if let OutputStream::Body(body) = self.table.get(stream)? {
            let body = body.clone();
            self.wait(None, || body.writable())?;
        }
        self.permit(stream)
    }

    fn write_all(&mut self, stream: &Resource<OutputStream>, bytes: &[u8]) -> StreamResult<()> {
        match self.table.get_mut(stream)? {
            OutputStream::Log(descriptor) => {
                let descriptor = *descriptor;
                self.log(descriptor, bytes)?;
                Ok(())
            }
            OutputStream::File(_) => self.write_file(stream, bytes),
            OutputStream::Body(body) => {
                let body = body.clone();
                body.write(self, bytes)
            }
        }
    }

    /// Writes to the component's log, in records that end at line ends where they can.
    pub fn log(&self, descriptor: u32, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.check()?;
            let mut len = bytes.len().min(LOG_RECORD);
            if len < bytes.len() {
                let lines = bytes
                    .get(..len)
                    .and_then(|b| b.iter().rposition(|b| *b == b'\n'));
                len = lines.map_or(len, |n| n + 1);
            }
            let (record, rest) = bytes.split_at(len);
            exchanges::log(self.id, descriptor, record);
            bytes = rest;
        }
        Ok(())
    }
}

/// `output-stream.write`, with the bytes where the component has them: those of a body go from there to the ring.
pub fn write(
    mut store: StoreContextMut<'_, State>,
    (stream, contents): (Resource<OutputStream>, WasmList<u8>),
) -> Result<(core::result::Result<(), streams::StreamError>,)> {
    let state = store.data();
    state.check()?;
    let written = match state.table.get(&stream)? {
        OutputStream::Body(body) => {
            let bytes = contents.as_le_slice(store.as_context());
            body.clone().write(state, bytes)
        }
        OutputStream::Log(_) | OutputStream::File(_) => {
            let bytes = contents.as_le_slice(store.as_context()).to_vec();
            store.data_mut().write_all(&stream, &bytes)
        }
    };
    let told = match written {
        Ok(()) => Ok(()),
        Err(error) => Err(streams::Host::convert_stream_error(
            store.data_mut(),
            error,
        )?),
    };
    Ok((told,))
}

impl streams::HostInputStream for State {
    fn read(&mut self, stream: Resource<InputStream>, len: u64) -> StreamResult<Vec<u8>> {
        self.check()?;
        if len == 0 {
            return match self.table.get(&stream)? {
                InputStream::Body(id) if exchanges::has_data(*id) => Ok(Vec::new()),
                _ => self.read_some(&stream, 0),
            };
        }
        self.read_some(&stream, length(len))
    }

    fn blocking_read(&mut self, stream: Resource<InputStream>, len: u64) -> StreamResult<Vec<u8>> {
        if len == 0 {
            if let InputStream::Body(id) = self.table.get(&stream)? {
                let id = *id;
                self.wait(None, || exchanges::readable(id))?;
            }
            return streams::HostInputStream::read(self, stream, 0);
        }
        self.read_waiting(&stream, length(len))
    }

    fn skip(&mut self, stream: Resource<InputStream>, len: u64) -> StreamResult<u64> {
        Ok(streams::HostInputStream::read(self, stream, len)?.len() as u64)
    }

    fn blocking_skip(&mut self, stream: Resource<InputStream>, len: u64) -> StreamResult<u64> {
        Ok(streams::HostInputStream::blocking_read(self, stream, len)?.len() as u64)
    }

    fn subscribe(&mut self, stream: Resource<InputStream>) -> Result<Resource<Pollable>> {
        let pollable = match self.table.get(&stream)? {
            InputStream::Body(id) => Pollable::Input(*id),
            InputStream::Closed | InputStream::File(_) => Pollable::Ready,
        };
        Ok(self.table.push_child(pollable, &stream)?)
    }

    fn drop(&mut self, stream: Resource<InputStream>) -> Result<()> {
        if let InputStream::File(file) = self.table.delete(stream)? {
            self.close_file(file.node());
        }
        Ok(())
    }
}

impl streams::HostOutputStream for State {
    fn check_write(&mut self, stream: Resource<OutputStream>) -> StreamResult<u64> {
        self.check()?;
        Ok(self.permit(&stream)? as u64)
    }

    // Components call the other `write`.
    fn write(&mut self, stream: Resource<OutputStream>, contents: Vec<u8>) -> StreamResult<()> {
        self.check()?;
        self.write_all(&stream, &contents)
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<OutputStream>,
        contents: Vec<u8>,
    ) -> StreamResult<()> {
        if contents.len() > BLOCKING_WRITE {
            return Err(StreamError::Trap(wasmtime::format_err!(
                "Buffer too large for blocking-write-and-flush (expected at most 4096)"
            )));
        }
        let mut rest = contents.as_slice();
        loop {
            let permit = self.permit_waiting(&stream)?;
            let (now, later) = rest.split_at(permit.min(rest.len()));
            self.write_all(&stream, now)?;
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn flush(&mut self, stream: Resource<OutputStream>) -> StreamResult<()> {
        self.check()?;
        self.permit(&stream).map(|_| ())
    }

    fn blocking_flush(&mut self, stream: Resource<OutputStream>) -> StreamResult<()> {
        self.permit_waiting(&stream).map(|_| ())
    }

    fn subscribe(&mut self, stream: Resource<OutputStream>) -> Result<Resource<Pollable>> {
        let pollable = match self.table.get(&stream)? {
            OutputStream::Body(body) => Pollable::Output(body.clone()),
            OutputStream::Log(_) | OutputStream::File(_) => Pollable::Ready,
        };
        Ok(self.table.push_child(pollable, &stream)?)
    }

    fn write_zeroes(&mut self, stream: Resource<OutputStream>, len: u64) -> StreamResult<()> {
        let permit = self.permit(&stream)?;
        if length(len) > permit {
            return Err(StreamError::Trap(wasmtime::format_err!(
                "cannot write more zeroes than `check_write` allows"
            )));
        }
        self.write_all(&stream, &vec![0; length(len)])
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<OutputStream>,
        len: u64,
    ) -> StreamResult<()> {
        if length(len) > BLOCKING_WRITE {
            return Err(StreamError::Trap(wasmtime::format_err!(
                "Buffer too large for blocking-write-zeroes-and-flush (expected at most 4096)"
            )));
        }
        self.blocking_write_and_flush(stream, vec![0; length(len)])
    }

    fn splice(
        &mut self,
        stream: Resource<OutputStream>,
        src: Resource<InputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        self.check()?;
        let len = length(len).min(self.permit(&stream)?);
        if len == 0 {
            return Ok(0);
        }
        let bytes = self.read_some(&src, len)?;
        self.write_all(&stream, &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn blocking_splice(
        &mut self,
        stream: Resource<OutputStream>,
        src: Resource<InputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        let len = length(len).min(self.permit_waiting(&stream)?);
        if len == 0 {
            return Ok(0);
        }
        let bytes = self.read_waiting(&src, len)?;
        self.write_all(&stream, &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn drop(&mut self, stream: Resource<OutputStream>) -> Result<()> {
        if let OutputStream::File(file) = self.table.delete(stream)? {
            self.close_file(file.node());
        }
        Ok(())
    }
}
