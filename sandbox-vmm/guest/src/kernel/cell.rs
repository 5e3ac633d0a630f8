//! Global state of a world with one processor.

use core::cell::RefCell;

/// A value that only one context uses at a time.
pub struct Local<T>(RefCell<T>);

// SAFETY: there is one virtual processor, and runtime code is never interrupted by other runtime code: threads switch
// only where they call the scheduler, and no caller does so inside of `with`, which the RefCell checks.
unsafe impl<T> Sync for Local<T> {}

impl<T> Local<T> {
    /// A value.
    pub const fn new(value: T) -> Self {
        Local(RefCell::new(value))
    }

    /// Uses the value. Panics if it is in use, which is a bug: nothing inside of `f` may park or fault into itself.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }
}
