//! `wasi:random`. The insecure interfaces get the same generator: it is fast enough.

use crate::kernel::random as generator;
use crate::link::bindings::wasi::random::{insecure, insecure_seed, random};
use crate::runtime::{Asked, State};
use alloc::vec::Vec;
use wasmtime::{Result, ensure};

/// Most bytes that one call may ask for.
const MOST: u64 = 64 << 20;
/// Bytes between two looks at the processor time.
const STEP: usize = 1 << 20;

fn word(state: &State) -> u64 {
    state.note(Asked::World);
    let mut bytes = [0; 8];
    generator::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn bytes(state: &State, len: u64) -> Result<Vec<u8>> {
    ensure!(
        len <= MOST,
        "{len} random bytes at once are more than {MOST}"
    );
    state.note(Asked::World);
    let len = usize::try_from(len)?;
    let mut bytes = Vec::new();
    ensure!(
        bytes.try_reserve_exact(len).is_ok(),
        "no memory for {len} random bytes"
    );
    bytes.resize(len, 0);
    for step in bytes.chunks_mut(STEP) {
        state.check()?;
        generator::fill(step);
    }
    Ok(bytes)
}

impl random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        bytes(self, len)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        Ok(word(self))
    }
}

impl insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        bytes(self, len)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        Ok(word(self))
    }
}

impl insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        // One for each instance, as the interface wants it: what was hashed with it is found again.
        if let Some(seed) = self.seed {
            return Ok(seed);
        }
        let seed = (word(self), word(self));
        self.seed = Some(seed);
        Ok(seed)
    }
}
