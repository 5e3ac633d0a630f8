//! `new` and `init`: a folder that can be deployed, and a manifest for one that is there.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use platform_model::AppName;
use serde::Serialize;

use crate::args::{InitArgs, NewArgs, Template};
use crate::failure::CliError;
use crate::manifest::{FILE, ManifestError};
use crate::terminal::{Terminal, Tone};

/// The component of quickstart.
const SAMPLE: &[u8] = include_bytes!("../../../../examples/rust-hello/rust-hello.wasm");

/// The files of the template `rust` besides the manifest.
const RUST: &[(&str, &str)] = &[
    (".gitignore", include_str!("../../templates/rust/gitignore")),
    (
        "Cargo.toml",
        include_str!("../../templates/rust/Cargo.toml"),
    ),
    ("build.sh", include_str!("../../templates/rust/build.sh")),
    (
        "src/lib.rs",
        include_str!("../../templates/rust/src/lib.rs"),
    ),
];

/// What `new --json` and `init --json` print.
#[derive(Debug, Serialize)]
struct Output<'a> {
    app: &'a AppName,
    manifest: &'a Path,
}

/// Makes a folder with an app in it.
pub(super) fn new(args: &NewArgs, terminal: &Terminal) -> Result<(), CliError> {
    let folder = PathBuf::from(args.app.as_str());
    if folder.exists() {
        return Err(ManifestError::There(folder).into());
    }
    let build = match args.template {
        Template::Hello => {
            write(&folder.join("app.wasm"), SAMPLE)?;
            None
        }
        Template::Rust => {
            for (name, text) in RUST {
                write(&folder.join(name), text.as_bytes())?;
            }
            Some("sh build.sh")
        }
    };
    let path = folder.join(FILE);
    let text = manifest(&args.app, Path::new("app.wasm"), build);
    write(&path, text.as_bytes())?;
    let next = format!("cd {} && cloister deploy", args.app);
    tell(&args.app, &path, &next, terminal)
}

/// Writes a manifest for what is in this folder.
pub(super) fn init(args: &InitArgs, terminal: &Terminal) -> Result<(), CliError> {
    let path = PathBuf::from(FILE);
    let text = manifest(&args.app, &args.component, args.build.as_deref());
    write(&path, text.as_bytes())?;
    tell(&args.app, &path, "cloister deploy", terminal)
}

fn tell(app: &AppName, path: &Path, next: &str, terminal: &Terminal) -> Result<(), CliError> {
    if terminal.json {
        let manifest = path;
        return terminal.print_json(&Output { app, manifest });
    }
    let next = terminal.paint(Tone::Strong, next);
    terminal.done(&format!("wrote {}\n  {next}", path.display()))
}

/// A manifest with one app.
fn manifest(app: &AppName, component: &Path, build: Option<&str>) -> String {
    // What TOML's own writer makes of a text is a text of TOML.
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let component = quoted(&component.to_string_lossy());
    let mut text = format!("[app.{app}]\ncomponent = {component}\n");
    if let Some(build) = build {
        text += &format!("build = {}\n", quoted(build));
    }
    text
}

/// Writes a file that is not there, with the folders that it is in.
fn write(path: &Path, content: &[u8]) -> Result<(), ManifestError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => ManifestError::There(path.to_owned()),
        _ => ManifestError::Write {
            path: path.to_owned(),
            source,
        },
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = File::create_new(path).map_err(failed)?;
    file.write_all(content).map_err(failed)
}
