//! Randomness: ChaCha20, seeded by the host's generator and the processor's.

use crate::kernel::boot;
use crate::kernel::cell::Local;
use core::arch::x86_64::__cpuid;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sandbox_abi::boot::field;

static GENERATOR: Local<Option<ChaCha20Rng>> = Local::new(None);

#[target_feature(enable = "rdrand")]
fn processor() -> u64 {
    let mut word = 0;
    for _ in 0..10 {
        if core::arch::x86_64::_rdrand64_step(&mut word) == 1 {
            break;
        }
    }
    word
}

/// Seeds the generator and wipes the host's seed.
pub fn init() {
    let has_rdrand = __cpuid(1).ecx & (1 << 30) != 0;
    let mut seed = [0; 32];
    for (n, word) in seed.chunks_exact_mut(8).enumerate() {
        let at = field::SEED + n as u64 * 8;
        let own = if has_rdrand {
            // SAFETY: cpuid says that the instruction is there.
            unsafe { processor() }
        } else {
            0
        };
        word.copy_from_slice(&(boot::get(at) ^ own).to_le_bytes());
        boot::set(at, 0);
    }
    GENERATOR.with(|g| *g = Some(ChaCha20Rng::from_seed(seed)));
}

/// Fills `bytes`.
pub fn fill(bytes: &mut [u8]) {
    GENERATOR.with(|g| g.as_mut().expect("seeded at boot").fill_bytes(bytes));
}
