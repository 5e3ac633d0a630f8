//! Which interfaces a component imports: not whether it may, only what it is made to call.

use crate::error::clipped;
use std::collections::BTreeSet;
use wasmparser::{Parser, Payload};

/// Most interfaces that are told, and longest name.
const MAX_IMPORTS: usize = 200;
const MAX_LENGTH: usize = 120;

/// The interfaces that a component imports, without versions, in order: `wasi:http/types`, `wasi:sockets/tcp`. Of a
/// component that cannot be read, those that can.
pub(crate) fn imports(bytes: &[u8]) -> Vec<String> {
    let mut depth = 0_u32;
    let mut names = BTreeSet::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::Version { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentImportSection(section)) if depth == 1 => {
                let imports = section.into_iter().filter_map(Result::ok);
                names.extend(imports.map(|import| unversioned(import.name.name)));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    names.into_iter().take(MAX_IMPORTS).collect()
}

fn unversioned(name: &str) -> String {
    clipped(name.split('@').next().unwrap_or_default(), MAX_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_outermost_component() {
        let bytes = wat::parse_str(
            r#"(component
                (import "wasi:sockets/tcp@0.2.3" (instance))
                (import "wasi:http/types@0.2.0" (instance))
                (import "wasi:http/types@0.2.9" (instance))
                (component (import "wasi:inner/x" (instance))))"#,
        );
        let bytes = bytes.unwrap();
        let expected = ["wasi:http/types", "wasi:sockets/tcp"];
        assert_eq!(imports(&bytes), expected);
        for cut in 0..bytes.len() {
            assert!(imports(&bytes[..cut]).len() <= 2);
        }
    }
}
