//! Lines for the operator.

/// Formats a line and hands it to the VMM. For what should never happen: each line costs an exit.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::kernel::debug::line(::core::format_args!($($arg)*)) };
}
pub use crate::debug;

use core::fmt::Write;

struct Line {
    bytes: [u8; 512],
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
        bytes: [0; 512],
        len: 0,
    };
    let _ = line.write_fmt(args);
    crate::kernel::port::debug(
        core::str::from_utf8(&line.bytes[..line.len]).unwrap_or("(not UTF-8)"),
    );
}
