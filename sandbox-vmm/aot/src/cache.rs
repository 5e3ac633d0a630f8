//! Names of artifacts: a digest of everything that an artifact depends on.
//!
//! Two nodes with the same processor, version and configuration give an artifact the same name, so a name is all
//! that the cache needs: there is nothing to look up and nothing to invalidate.

use crate::config;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use wasmtime::Engine;

/// File name extension of artifacts.
pub const EXTENSION: &str = "cwasm";

/// File name extension of what is kept beside an artifact: what its component imports.
pub const IMPORTS_EXTENSION: &str = "imports";

/// The key of a component's artifact: 64 hexadecimal digits, from the component's SHA-256 digest, the wasmtime
/// version, every setting that code depends on, and the processor features in use.
pub fn key(engine: &Engine, component: &[u8; 32]) -> String {
    let mut digest = Digester(Sha256::new());
    digest.write(b"cloister artifact");
    config::REVISION.hash(&mut digest);
    // Read by the compiler, but no part of what wasmtime hashes.
    config::DENSE_IMAGE_BYTES.hash(&mut digest);
    engine.precompile_compatibility_hash().hash(&mut digest);
    digest.write(component);
    hexadecimal(&digest.0.finalize())
}

/// Feeds what a type says of itself into a digest.
struct Digester(Sha256);

impl Hasher for Digester {
    fn write(&mut self, bytes: &[u8]) {
        // Lengths keep apart what two neighbours contribute.
        self.0.update(bytes.len().to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::key;
    use crate::engine_config;
    use wasmtime::Engine;

    #[test]
    fn covers_component_and_configuration() {
        let engine = Engine::new(&engine_config().unwrap()).unwrap();
        let same = Engine::new(&engine_config().unwrap()).unwrap();
        let other = Engine::new(engine_config().unwrap().wasm_tail_call(false)).unwrap();
        let a = key(&engine, &[1; 32]);
        assert_eq!(a.len(), 64);
        assert_eq!(a, key(&same, &[1; 32]));
        assert_ne!(a, key(&engine, &[2; 32]));
        assert_ne!(a, key(&other, &[1; 32]));
    }
}
