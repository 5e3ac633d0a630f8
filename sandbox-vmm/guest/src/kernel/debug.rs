//! Lines for the operator.

/// Formats a line and hands it to the VMM. For what should never happen: each line costs an exit.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::kernel::debug::line(::core::format_args!($($arg)*)) };
}
pub use crate::debug;

use crate::kernel::cell::Solo;
use core::fmt::Write;

/// Most bytes of a line.
const MOST: usize = 512;

static BUFFER: Solo<[u8; MOST]> = Solo::new([0; MOST]);

struct Line {
    bytes: [u8; MOST],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let mut n = s.len().min(room.len());
        while !s.is_char_boundary(n) {
            n -= 1;
        }
        room[..n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Writes a line of at most 512 bytes; the rest is cut off. Needs no heap, so that it works in a panic.
pub fn line(args: core::fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; MOST],
        len: 0,
    };
    let _ = line.write_fmt(args);
    // A thread's stack is not mapped one to one, where the VMM looks for the line.
    BUFFER.with(|buffer| {
        let buffer = &mut buffer[..line.len];
        buffer.copy_from_slice(&line.bytes[..line.len]);
        crate::kernel::port::debug(core::str::from_utf8(buffer).unwrap_or("(not UTF-8)"));
    });
}
