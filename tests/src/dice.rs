//! Numbers that look random and are the same in each run with a seed.

/// Rolls numbers.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// With the seed that a variable of the environment has, and tells which it is.
    #[must_use]
    pub fn new(variable: &str) -> Self {
        let seed = std::env::var(variable).ok();
        let seed = seed.and_then(|n| n.parse().ok()).unwrap_or(2_026);
        println!("{variable}={seed}");
        Self(seed)
    }

    /// With this seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}
