//! What a deployment tells its guest. Written by the router's process, passed through the worker unread, as a file in memory.

use crate::wire::{Malformed, Reader, Sink};

/// What becomes of an instance when its request is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It is put back to what it was before the request.
    Never,
    /// It stays as the request left it, and is put back after so many requests or so many nanoseconds.
    UpTo {
        /// Requests.
        requests: u64,
        /// Nanoseconds since its first request.
        ns: u64,
    },
    /// As `Never`; and as the whole VM is put back after its requests, the guest sleeps as soon as it has none.
    Vm {
        /// After how many requests the VM is put back. After the first, an instance need not be put back as well.
        requests: u64,
    },
}

/// Limits of one request and of the guest as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of wasm memory that one request's instance may have.
    pub memory: u64,
    /// Processor time of one request in nanoseconds.
    pub cpu_ns: u64,
    /// How long a component may go on after its response ended, in nanoseconds.
    pub post_return_ns: u64,
    /// Requests in flight.
    pub concurrency: u32,
    /// Bytes of a response's head, or of trailers.
    pub head_bytes: u32,
    /// Bytes of scratch directory per request; 0 is no directory.
    pub scratch_bytes: u64,
}

/// A configuration, borrowed from its encoding.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// The limits.
    pub limits: Limits,
    /// What becomes of instances.
    pub reuse: Reuse,
    count: u32,
    reader: Reader<'a>,
}

impl<'a> Config<'a> {
    /// Writes a configuration.
    pub fn write<S: Sink, N: AsRef<str>, V: AsRef<str>>(
        sink: &mut S,
        limits: &Limits,
        reuse: Reuse,
        env: impl ExactSizeIterator<Item = (N, V)>,
    ) {
        sink.u64(limits.memory);
        sink.u64(limits.cpu_ns);
        sink.u64(limits.post_return_ns);
        sink.u32(limits.concurrency);
        sink.u32(limits.head_bytes);
        sink.u64(limits.scratch_bytes);
        let (kind, requests, ns) = match reuse {
            Reuse::Never => (0, 0, 0),
            Reuse::UpTo { requests, ns } => (1, requests, ns),
            Reuse::Vm { requests } => (2, requests, 0),
        };
        sink.u8(kind);
        sink.u64(requests);
        sink.u64(ns);
        sink.u32(u32::try_from(env.len()).unwrap_or(u32::MAX));
        for (name, value) in env {
            sink.bytes(name.as_ref().as_bytes());
            sink.bytes(value.as_ref().as_bytes());
        }
    }

    /// Reads a configuration; its environment is read by [`Config::env`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let limits = Limits {
            memory: reader.u64()?,
            cpu_ns: reader.u64()?,
            post_return_ns: reader.u64()?,
            concurrency: reader.u32()?,
            head_bytes: reader.u32()?,
            scratch_bytes: reader.u64()?,
        };
        let (kind, requests, ns) = (reader.u8()?, reader.u64()?, reader.u64()?);
        let reuse = match kind {
            0 => Reuse::Never,
            1 => Reuse::UpTo { requests, ns },
            2 => Reuse::Vm { requests },
            _ => return Err(Malformed),
        };
        Ok(Config {
            limits,
            reuse,
            count: reader.u32()?,
            reader,
        })
    }

    /// The environment variables, in the order in which they were given. Ends early where the encoding does.
    pub fn env(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut reader = self.reader;
        (0..self.count).map_while(move |_| Some((reader.text().ok()?, reader.text().ok()?)))
    }
}
