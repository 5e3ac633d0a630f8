//! How much of a body may be on its way: the reader's side of the credit, for both ends of the rings.
//!
//! A body begins with [`INITIAL_CREDIT`]. Each time as much as its whole window was read, the window doubles, up to
//! [`MAX_WINDOW`]: a body that flows is not held up by the time that a grant takes. What all windows of one reader have
//! beyond the first is bounded by [`Extra`], so that many bodies that stop flowing cannot take more memory than that.

use crate::message::{INITIAL_CREDIT, MAX_WINDOW};
use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes that the windows of one reader may have beyond [`INITIAL_CREDIT`], all together.
#[derive(Debug)]
pub struct Extra(AtomicU32);

impl Extra {
    /// So many bytes.
    pub const fn new(bytes: u32) -> Extra {
        Extra(AtomicU32::new(bytes))
    }

    fn take(&self, bytes: u32) -> bool {
        let less = |left: u32| left.checked_sub(bytes);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(set, fetch, less).is_ok()
    }
}

/// The window of one body.
#[derive(Debug)]
pub struct Window {
    size: u32,
    /// Bytes read since it has this size.
    read: u32,
    /// Bytes read that the writer has not been granted again.
    due: u32,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            size: INITIAL_CREDIT,
            read: 0,
            due: 0,
        }
    }
}

impl Window {
    /// Counts bytes as read. What is to be granted to the writer now, 0 for nothing.
    pub fn read(&mut self, bytes: usize, extra: &Extra) -> u32 {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.due = self.due.saturating_add(bytes);
        self.read = self.read.saturating_add(bytes);
        if self.due < self.size / 4 {
            return 0;
        }
        let mut grant = core::mem::take(&mut self.due);
        if self.read >= self.size && self.size < MAX_WINDOW && extra.take(self.size) {
            grant = grant.saturating_add(self.size);
            self.size *= 2;
            self.read = 0;
        }
        grant
    }

    /// The body is over.
    pub fn close(&mut self, extra: &Extra) {
        let more = core::mem::take(self).size - INITIAL_CREDIT;
        extra.0.fetch_add(more, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `rounds` windows' worth in pieces of 32 KiB; the writer sends whatever it may.
    fn flow(window: &mut Window, extra: &Extra, bytes: u32) -> u32 {
        let (mut credit, mut most) = (INITIAL_CREDIT, 0);
        for _ in 0..bytes / (32 << 10) {
            most = most.max(credit);
            credit -= 32 << 10;
            credit += window.read(32 << 10, extra);
        }
        most
    }

    #[test]
    fn a_body_that_flows_gets_more_but_not_without_end() {
        let extra = Extra::new(64 << 20);
        let mut window = Window::default();
        assert_eq!(window.read(INITIAL_CREDIT as usize / 4 - 1, &extra), 0);
        assert_eq!(window.read(1, &extra), INITIAL_CREDIT / 4);
        assert_eq!(flow(&mut Window::default(), &extra, 64 << 20), MAX_WINDOW);
    }

    #[test]
    fn all_together_have_what_there_is() {
        let extra = Extra::new(INITIAL_CREDIT);
        let (mut first, mut second) = (Window::default(), Window::default());
        assert_eq!(flow(&mut first, &extra, 16 << 20), 2 * INITIAL_CREDIT);
        assert_eq!(flow(&mut second, &extra, 16 << 20), INITIAL_CREDIT);
        first.close(&extra);
        assert_eq!(flow(&mut second, &extra, 16 << 20), 2 * INITIAL_CREDIT);
        second.close(&extra);
        assert_eq!(extra.0.load(Ordering::Relaxed), INITIAL_CREDIT);
    }
}
