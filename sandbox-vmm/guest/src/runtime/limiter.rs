//! What an instance may have of memories and tables.

use wasmtime::ResourceLimiter;

/// Most elements of all tables of an instance, and most instances, tables and memories.
const TABLE_ELEMENTS: usize = 1 << 20;
const INSTANCES: usize = 1000;

/// Counts an instance's memory, and refuses more than it may have.
pub(super) struct Limiter {
    pub(super) most: usize,
    pub(super) used: usize,
    pub(super) peak: usize,
    elements: usize,
    pub(super) refused: bool,
}

impl Limiter {
    /// One that gives out at most so many bytes of memory.
    pub(super) fn new(most: usize) -> Limiter {
        Limiter {
            most,
            used: 0,
            peak: 0,
            elements: 0,
            refused: false,
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        if used > self.most {
            self.refused = true;
            return Ok(false);
        }
        self.used = used;
        self.peak = self.peak.max(used);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self
            .elements
            .saturating_sub(current)
            .saturating_add(desired);
        let fine = elements <= TABLE_ELEMENTS;
        if fine {
            self.elements = elements;
        }
        Ok(fine)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        INSTANCES
    }

    fn memories(&self) -> usize {
        INSTANCES
    }
}
