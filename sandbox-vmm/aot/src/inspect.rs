//! What a component imports, exports and holds: the checks that come before compiling.
//!
//! Function bodies are not looked at here; the compiler validates those.

use crate::error::{MAX_NAMES, MissingImport, Rejection, clipped};
use crate::world::{World, is_release_of_0_2};
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::types::{Types, TypesRef};
use wasmparser::{Encoding, Parser, Payload, ValidPayload, Validator, WasmFeatures};

/// Bytes that a component may have.
pub const MAX_COMPONENT_BYTES: u64 = 256 << 20;

/// Linear memories that one instance of a component may have.
pub const MAX_MEMORIES: u64 = 100;

const HANDLER: &str = "wasi:http/incoming-handler";

/// Checks that the bytes are a component which the guest can run, as far as that shows without compiling it.
pub fn inspect(bytes: &[u8]) -> Result<(), Rejection> {
    check_kind(bytes)?;
    let outline = Outline::read(bytes)?;
    let types = outline.types.as_ref();
    check_exports(types, &outline.exports)?;
    check_imports(types, &outline.imports)
}

/// Tells apart what people deploy by mistake by its first bytes.
fn check_kind(bytes: &[u8]) -> Result<(), Rejection> {
    const MAGIC: &[u8] = b"\0asm";
    let size = bytes.len() as u64;
    if size > MAX_COMPONENT_BYTES {
        return Err(Rejection::TooLarge {
            size,
            limit: MAX_COMPONENT_BYTES,
        });
    }
    match bytes {
        [] => Err(Rejection::Empty),
        _ if bytes.starts_with(b"\x7fELF") => Err(Rejection::Elf),
        _ if bytes.len() < 8 && (bytes.starts_with(MAGIC) || MAGIC.starts_with(bytes)) => {
            Err(Rejection::Truncated { offset: size })
        }
        _ if bytes.starts_with(MAGIC) => match Parser::is_component(bytes) {
            true => Ok(()),
            false if Parser::is_core_wasm(bytes) => Err(Rejection::CoreModule),
            false => Err(Rejection::Invalid {
                reason: "its version is unknown".to_owned(),
            }),
        },
        _ if is_text(bytes) => Err(Rejection::Text),
        _ => {
            let begin: Vec<String> = bytes
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            Err(Rejection::NotWasm {
                begin: begin.join(" "),
            })
        }
    }
}

/// Whether this is WebAssembly text: behind comments, an opening parenthesis and one of two words.
fn is_text(bytes: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
    let text = String::from_utf8_lossy(head);
    let first = text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim_start)
        .find(|line| !line.is_empty() && !line.starts_with(";;") && !line.starts_with("(;"));
    first.is_some_and(|line| {
        line.strip_prefix('(')
            .map(str::trim_start)
            .is_some_and(|rest| {
                rest.is_empty() || rest.starts_with("module") || rest.starts_with("component")
            })
    })
}

/// The outside of a component.
struct Outline {
    /// Names of the imports of the outermost component.
    imports: Vec<String>,
    /// Names of its exports.
    exports: Vec<String>,
    types: Types,
}

impl Outline {
    fn read(bytes: &[u8]) -> Result<Self, Rejection> {
        // Everything that the parser knows: what is not supported is said by the compiler, more precisely.
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        let (mut imports, mut exports) = (Vec::new(), Vec::new());
        // Memories that its modules define, each module counted once.
        let mut memories = 0;
        // Encodings of the modules and components that are open; 1 is the outermost component.
        let mut open = Vec::new();
        let mut types = None;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|error| invalid(&error, bytes))?;
            match &payload {
                Payload::Version { encoding, .. } => open.push(*encoding),
                Payload::MemorySection(section) => {
                    memories += u64::from(section.count());
                    if memories > MAX_MEMORIES {
                        return Err(Rejection::TooManyMemories {
                            count: memories,
                            limit: MAX_MEMORIES,
                        });
                    }
                }
                Payload::ComponentImportSection(section) if open.len() == 1 => {
                    for import in section.clone() {
                        imports.push(
                            import
                                .map_err(|error| invalid(&error, bytes))?
                                .name
                                .name
                                .to_owned(),
                        );
                    }
                }
                Payload::ComponentExportSection(section) if open.len() == 1 => {
                    for export in section.clone() {
                        exports.push(
                            export
                                .map_err(|error| invalid(&error, bytes))?
                                .name
                                .name
                                .to_owned(),
                        );
                    }
                }
                _ => {}
            }
            match validator
                .payload(&payload)
                .map_err(|error| invalid(&error, bytes))?
            {
                ValidPayload::End(found) => {
                    if open.pop() == Some(Encoding::Component) && open.is_empty() {
                        types = Some(found);
                    }
                }
                ValidPayload::Ok | ValidPayload::Parser(_) | ValidPayload::Func(..) => {}
            }
        }
        let types = types.ok_or(Rejection::Truncated {
            offset: bytes.len() as u64,
        })?;
        Ok(Self {
            imports,
            exports,
            types,
        })
    }
}

fn invalid(error: &wasmparser::BinaryReaderError, bytes: &[u8]) -> Rejection {
    // The parser reports an end of input wherever a length goes past it.
    if error.offset() >= bytes.len() || error.message().starts_with("unexpected end") {
        Rejection::Truncated {
            offset: bytes.len() as u64,
        }
    } else {
        Rejection::Invalid {
            reason: clipped(&error.to_string(), 1000),
        }
    }
}

fn check_exports(types: TypesRef<'_>, exports: &[String]) -> Result<(), Rejection> {
    let is_handler = |export: &&String| {
        let parts = export.split_once('@');
        parts.is_some_and(|(name, version)| name == HANDLER && is_release_of_0_2(version))
            && matches!(
                types.component_item_for_export(export).map(|item| item.ty),
                Some(ComponentEntityType::Instance(_))
            )
    };
    if exports.iter().any(|export| is_handler(&export)) {
        return Ok(());
    }
    match exports
        .iter()
        .find(|export| export.starts_with("wasi:http/handler@0.3."))
    {
        Some(export) => Err(Rejection::Wasi03 {
            export: clipped(export, 200),
        }),
        None => Err(Rejection::NoHandler {
            exports: exports
                .iter()
                .take(MAX_NAMES)
                .map(|name| clipped(name, 200))
                .collect(),
        }),
    }
}

fn check_imports(types: TypesRef<'_>, imports: &[String]) -> Result<(), Rejection> {
    let world = World::load().map_err(|reason| Rejection::Invalid { reason })?;
    let missing = imports
        .iter()
        .flat_map(|import| missing(types, &world, import));
    let missing: Vec<MissingImport> = missing.take(MAX_NAMES).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Rejection::UnknownImports { missing })
    }
}

/// What nobody implements of one import. Types that are only named need nothing of the host.
fn missing(types: TypesRef<'_>, world: &World, import: &str) -> Vec<MissingImport> {
    let missing = |item: Option<&String>| MissingImport {
        interface: clipped(import, 200),
        item: item.map(|item| clipped(item, 200)),
    };
    let instance = match types.component_item_for_import(import).map(|item| item.ty) {
        Some(ComponentEntityType::Instance(instance)) => instance,
        Some(ty) if needs_host(&ty) => return vec![missing(None)],
        _ => return Vec::new(),
    };
    let exports = types[instance].exports.iter();
    let mut needed = exports
        .filter(|(_, item)| needs_host(&item.ty))
        .map(|(name, _)| name);
    match world.interface(import) {
        Some(known) => {
            let absent = needed.filter(|name| !known.contains(*name));
            absent
                .take(MAX_NAMES)
                .map(|name| missing(Some(name)))
                .collect()
        }
        None => needed.next().map(|_| missing(None)).into_iter().collect(),
    }
}

/// Whether an imported item has to be implemented by somebody: functions and resources are, other types are not.
fn needs_host(ty: &ComponentEntityType) -> bool {
    match ty {
        ComponentEntityType::Type { created, .. } => {
            matches!(created, ComponentAnyTypeId::Resource(_))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;
