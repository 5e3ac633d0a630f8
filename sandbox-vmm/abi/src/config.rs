//! What a deployment tells its guest. Written by the router's process, passed through the worker unread.

use crate::wire::{Malformed, Reader, Sink};

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
    count: u32,
    reader: Reader<'a>,
}

impl<'a> Config<'a> {
    /// Writes a configuration.
    pub fn write<S: Sink, N: AsRef<str>, V: AsRef<str>>(
        sink: &mut S,
        limits: &Limits,
        env: impl ExactSizeIterator<Item = (N, V)>,
    ) {
        sink.u64(limits.memory);
        sink.u64(limits.cpu_ns);
        sink.u64(limits.post_return_ns);
        sink.u32(limits.concurrency);
        sink.u32(limits.head_bytes);
        sink.u64(limits.scratch_bytes);
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
        Ok(Config {
            limits,
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
