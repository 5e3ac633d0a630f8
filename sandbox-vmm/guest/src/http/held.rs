//! Bytes that components make the runtime keep for them: fields and bodies that wait for their head. All requests
//! share the budget, as they share the runtime's memory: it must outlive what any of them does.

use crate::kernel::cell::Local;

/// Most bytes of all requests together.
const MOST: usize = 64 << 20;

static TOTAL: Local<usize> = Local::new(0);

/// A share of the budget; dropped, it is given back.
#[derive(Default)]
pub struct Held(usize);

impl Held {
    /// Asks for `bytes` more. `false`: there is no room for them.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let fits = TOTAL.with(|total| {
            let fits = total.saturating_add(bytes) <= MOST;
            if fits {
                *total += bytes;
            }
            fits
        });
        if fits {
            self.0 += bytes;
        }
        fits
    }
}

impl Clone for Held {
    /// A copy is small, and the next growth of it is refused where there is no room.
    fn clone(&self) -> Self {
        TOTAL.with(|total| *total = total.saturating_add(self.0));
        Held(self.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        TOTAL.with(|total| *total = total.saturating_sub(self.0));
    }
}
