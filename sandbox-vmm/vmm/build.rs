//! Builds the guest runtime with the stock toolchain and leaves its path in `CLOISTER_GUEST`, to be embedded.
//!
//! The guest is another world: no std, no host libraries, static at a fixed address. It is therefore a workspace of
//! its own, built here with `cargo` into `TARGET/guest`, which all profiles share: the guest is always optimised.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let guest = here.with_file_name("guest");
    for input in [
        "guest/src",
        "guest/wit",
        "guest/stub",
        "guest/Cargo.toml",
        "guest/Cargo.lock",
        "abi/src",
        "ring/src",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            here.with_file_name(input).display()
        );
    }
    // OUT_DIR is TARGET/PROFILE/build/PACKAGE/out.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let target = out
        .ancestors()
        .nth(4)
        .ok_or("OUT_DIR is not below a target folder")?
        .join("guest");
    let std = build_std(&guest, &target)?;
    let elf = build_guest(&guest, &target, &std)?;
    println!("cargo::rustc-env=CLOISTER_GUEST={}", elf.display());
    Ok(())
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command
        .status()
        .map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} ended with {status}").into())
    }
}

/// A crate named `std` with what is in core and alloc: some dependencies say `extern crate std` on every unix target.
///
/// Its folder is named after its source: cargo does not know that everything in the guest is built against it, but it
/// knows that other flags make another build.
fn build_std(guest: &Path, target: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let source = guest.join("stub/std/lib.rs");
    let mut hasher = DefaultHasher::new();
    std::fs::read(&source)?.hash(&mut hasher);
    let folder = target.join(format!("std-{:016x}", hasher.finish()));
    let rlib = folder.join("libstd.rlib");
    if !rlib.exists() {
        std::fs::create_dir_all(&folder)?;
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let unfinished = folder.join("unfinished.rlib");
        run(Command::new(rustc)
            .args([
                "--edition",
                "2021",
                "--crate-name",
                "std",
                "--crate-type",
                "rlib",
            ])
            .args(["-O", "-Cpanic=abort", "-o"])
            .args([&unfinished, &source]))?;
        std::fs::rename(unfinished, rlib)?;
    }
    Ok(folder)
}

fn build_guest(guest: &Path, target: &Path, std: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let flags = [
        format!("-Ldependency={}", std.display()),
        format!("--extern=std={}", std.join("libstd.rlib").display()),
        "-Crelocation-model=static".into(),
        "-Cforce-frame-pointers=yes".into(),
        "-Clink-args=-nostartfiles".into(),
        "-Clink-args=-nostdlib".into(),
        "-Clink-args=-static".into(),
        "-Clink-args=-no-pie".into(),
        "-Clink-args=-Wl,--image-base=0x200000,--build-id=none,-z,noseparate-code,-z,max-page-size=0x200000".into(),
    ];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(guest)
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            TRIPLE,
            "--target-dir",
        ])
        .arg(target);
    // What the outer build was told is not meant for the guest.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let outer = [
            "RUSTFLAGS",
            "RUSTDOCFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CLIPPY_ARGS",
            "TARGET",
            "HOST",
            "OUT_DIR",
        ];
        let profile = text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_CFG_");
        if outer.contains(&&*text)
            || profile
            || text.starts_with("CARGO_ENCODED_")
            || text == "CARGO_BUILD_TARGET"
        {
            command.env_remove(&name);
        }
    }
    // The unit separator keeps a path with blanks in it whole.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    run(&mut command)?;
    Ok(target.join(TRIPLE).join("release/sandbox-guest"))
}
