//! Global state of a world with one processor.

use crate::kernel::heap;
use core::cell::RefCell;

/// A value that only one context uses at a time.
pub struct Solo<T>(RefCell<T>);

// SAFETY: there is one virtual processor, and runtime code is never interrupted by other runtime code: threads switch
// only where they call the scheduler, and no caller does so inside of `with`, which the RefCell checks.
unsafe impl<T> Sync for Solo<T> {}

impl<T> Solo<T> {
    /// A value.
    pub const fn new(value: T) -> Self {
        Solo(RefCell::new(value))
    }

    /// Uses the value. Panics if it is in use, which is a bug: nothing inside of `f` may park or fault into itself.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }
}

/// A value that outlives requests.
pub struct Local<T>(Solo<T>);

impl<T> Local<T> {
    /// A value.
    pub const fn new(value: T) -> Self {
        Local(Solo::new(value))
    }

    /// Uses the value, as [`Solo::with`]. What `f` allocates comes from the runtime's heap: it may be kept in the value.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let heap = heap::switch(0);
        let result = self.0.with(f);
        heap::switch(heap);
        result
    }
}
