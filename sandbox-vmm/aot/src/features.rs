//! The processor features that compiled code may use.
//!
//! Left to itself the compiler takes whatever its processor has, and an artifact could ask for what the guest cannot
//! give: it saves no AVX-512 registers when it switches threads. So the target is named, which turns every feature
//! off, and those of this list that the processor has are turned on. They are x86-64-v3 less what Cranelift has no use
//! for. The guest looks for the same ones (`sandbox-guest`, `platform.rs`).

use wasmtime::Config;

/// What the code is compiled for: the target of the guest's own build.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Cranelift's name of a feature, and whether the processor has it.
fn features() -> [(&'static str, bool); 12] {
    use std::arch::is_x86_feature_detected as has;
    [
        ("has_sse3", has!("sse3")),
        ("has_ssse3", has!("ssse3")),
        ("has_sse41", has!("sse4.1")),
        ("has_sse42", has!("sse4.2")),
        ("has_cmpxchg16b", has!("cmpxchg16b")),
        ("has_popcnt", has!("popcnt")),
        ("has_lzcnt", has!("lzcnt")),
        ("has_bmi1", has!("bmi1")),
        ("has_bmi2", has!("bmi2")),
        ("has_avx", has!("avx")),
        ("has_avx2", has!("avx2")),
        ("has_fma", has!("fma")),
    ]
}

/// Compiles for the guest's target with the features that this processor has.
///
/// # Errors
/// When wasmtime was built without the target.
pub(crate) fn choose(config: &mut Config) -> wasmtime::Result<()> {
    config.target(TARGET)?;
    for (flag, _) in features().into_iter().filter(|(_, has)| *has) {
        #[expect(unsafe_code, reason = "wasmtime has no other way to name features")]
        // SAFETY: each flag only allows instructions that the processor was found to have, and that keep their state
        // in the registers which the guest's kernel saves (`trap.rs`: fxsave; Cranelift keeps nothing in upper halves).
        unsafe {
            config.cranelift_flag_enable(flag)
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A feature that the guest does not look for would make it refuse every artifact, on some processors only.
    #[test]
    fn the_guest_looks_for_each_of_them() {
        let guest = include_str!("../../guest/src/platform.rs");
        for (flag, _) in features() {
            let name = match flag {
                "has_sse41" => "sse4.1",
                "has_sse42" => "sse4.2",
                other => other.strip_prefix("has_").unwrap(),
            };
            assert!(guest.contains(&format!("\"{name}\" => bit(")), "{name}");
        }
    }
}
