//! What the guest implements: the functions and types of its WIT files.
//!
//! Names are matched as wasmtime's linker does it: any release of `0.2` stands for all, so a component made with
//! another patch version is accepted if what it imports exists here. A pre-release stands for itself alone.

use std::collections::{HashMap, HashSet};
use wit_parser::{Resolve, SourceMap};

/// The guest's own WIT files: the same that its bindings are made of.
const WIT: &[(&str, &str)] = &[
    ("io.wit", include_str!("../../guest/wit/deps/io.wit")),
    (
        "clocks.wit",
        include_str!("../../guest/wit/deps/clocks.wit"),
    ),
    (
        "random.wit",
        include_str!("../../guest/wit/deps/random.wit"),
    ),
    (
        "filesystem.wit",
        include_str!("../../guest/wit/deps/filesystem.wit"),
    ),
    (
        "sockets.wit",
        include_str!("../../guest/wit/deps/sockets.wit"),
    ),
    ("cli.wit", include_str!("../../guest/wit/deps/cli.wit")),
    (
        "config.wit",
        include_str!("../../guest/wit/deps/config.wit"),
    ),
    ("http.wit", include_str!("../../guest/wit/deps/http.wit")),
];

/// Interfaces by [`key`], each with its functions and types.
pub(crate) struct World {
    interfaces: HashMap<String, HashSet<String>>,
}

impl World {
    /// Reads the embedded files. An error is a bug of the build, which a test would have seen.
    pub(crate) fn load() -> Result<Self, String> {
        let mut resolve = Resolve::default();
        for (name, text) in WIT {
            let mut source = SourceMap::default();
            source.push_str(name, *text);
            let group = source
                .parse()
                .map_err(|(_, error)| format!("{name}: {error:?}"))?;
            resolve
                .push_group(group)
                .map_err(|error| format!("{name}: {error:?}"))?;
        }
        let mut interfaces = HashMap::new();
        for (id, interface) in resolve.interfaces.iter() {
            let Some(name) = resolve.id_of(id) else {
                continue;
            };
            let Some(name) = key(&name) else { continue };
            // Resources that an interface takes from another are listed in both, so all its types count.
            let items = interface
                .functions
                .keys()
                .chain(interface.types.keys())
                .cloned()
                .collect();
            interfaces.insert(name.to_owned(), items);
        }
        Ok(Self { interfaces })
    }

    /// The functions and types of an imported interface; `None` if there is none of a compatible version.
    pub(crate) fn interface(&self, import: &str) -> Option<&HashSet<String>> {
        self.interfaces.get(key(import)?)
    }
}

/// What an interface is found by: "wasi:io/poll" for any release of `0.2`, else its whole name. `None`: it has no version.
fn key(interface: &str) -> Option<&str> {
    let (name, version) = interface.split_once('@')?;
    Some(if is_release_of_0_2(version) {
        name
    } else {
        interface
    })
}

/// Whether a version is `0.2.N`: pre-releases of it are other interfaces.
pub(crate) fn is_release_of_0_2(version: &str) -> bool {
    version
        .strip_prefix("0.2.")
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_functions_of_wasi() {
        let world = World::load().unwrap();
        let http = world.interface("wasi:http/types@0.2.0").unwrap();
        assert!(http.contains("[method]fields.get") && http.contains("fields"));
        assert!(
            world
                .interface("wasi:cli/terminal-stdout@0.2.12")
                .unwrap()
                .contains("get-terminal-stdout")
        );
        assert!(world.interface("wasi:sockets/tcp@0.2.3").is_some());
        assert!(world.interface("wasi:http/types@0.3.0").is_none());
        assert!(world.interface("wasi:http/types").is_none());
        assert!(world.interface("wasi:keyvalue/store@0.2.0").is_none());
    }

    #[test]
    fn a_pre_release_stands_for_itself() {
        let world = World::load().unwrap();
        let store = world.interface("wasi:config/store@0.2.0-rc.1").unwrap();
        assert!(store.contains("get") && store.contains("get-all"));
        for other in ["@0.2.0-rc.2", "@0.2.0-draft", "@0.2.0", "@0.2.1", ""] {
            let import = format!("wasi:config/store{other}");
            assert!(world.interface(&import).is_none(), "{import}");
        }
        assert!(world.interface("wasi:http/types@0.2.0-rc.1").is_none());
    }

    #[test]
    fn unstable_functions_are_absent_as_in_wasmtime() {
        let world = World::load().unwrap();
        let types = world.interface("wasi:http/types@0.2.0").unwrap();
        assert!(types.contains("[static]response-outparam.set"));
        assert!(!types.contains("[method]response-outparam.send-informational"));
    }

    #[test]
    fn versions() {
        assert!(is_release_of_0_2("0.2.0") && is_release_of_0_2("0.2.99"));
        for other in [
            "0.2",
            "0.2.",
            "0.2.0-rc-2023-11-10",
            "0.3.0",
            "0.20.1",
            "1.2.0",
        ] {
            assert!(!is_release_of_0_2(other), "{other}");
        }
    }
}
