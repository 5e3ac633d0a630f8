//! The fuzz targets' checks, on their corpus and on pseudo-random inputs: the same ones in every run.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, in its helpers too"
)]

mod checks;

/// A xorshift generator: any numbers will do, as long as they are the same next time.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| byte()).collect()
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");
    let files = std::fs::read_dir(format!("{folder}/{target}")).unwrap();
    files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn a_hostile_peer_causes_no_panic() {
    for input in corpus("hostile_peer") {
        checks::hostile_peer(&input);
    }
    for seed in 0..300 {
        // Small numbers are more often plausible, and get further.
        let mut input = noise(seed, 2000);
        for (n, byte) in input.iter_mut().enumerate() {
            if seed % 2 == 0 && n % 10 > 4 {
                *byte = 0;
            }
        }
        checks::hostile_peer(&input);
    }
}

#[test]
fn decoders_take_any_bytes() {
    for input in corpus("decode") {
        checks::decode_all(&input);
    }
    for seed in 0..3000 {
        let mut input = noise(seed, seed as usize % 300);
        for byte in input.iter_mut().filter(|b| **b > 40) {
            *byte = 0;
        }
        checks::decode_all(&input);
    }
}
