//! The compiler process, end to end. This executable is also the compiler that it starts, as the real one is.

use sandbox_aot::{CompileError, CompileLimits, ROLE, Rejection, child_main, compile};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A name, and what is done in an empty folder.
type Check = (&'static str, fn(&Path));

const CHECKS: &[Check] = &[
    ("compiles_once_and_finds_it_again", compiles),
    ("rejections_come_through", rejections),
    ("memories_count_as_often_as_they_are_made", memories),
    ("memory_is_capped", memory),
    ("time_is_capped", time),
    ("artifact_size_is_capped", size),
    ("a_process_that_says_nothing_is_an_error", silent),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((role, rest)) if role == ROLE => return child_main(rest),
        _ => {}
    }
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    for (name, check) in CHECKS
        .iter()
        .filter(|check| wanted.is_none_or(|wanted| check.0.contains(wanted.as_str())))
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        check(folder.path());
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// A component that exports the handler; `inside` goes into its core module, `outside` into the component.
fn component(inside: &str, outside: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            {outside}
            (component $h (import "f" (func $f)) (export "handle" (func $f)))
            (core module $m (func (export "handle")) {inside})
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "handle")))
            (instance $e (instantiate $h (with "f" (func $f))))
            (export "wasi:http/incoming-handler@0.2.3" (instance $e)))"#
    );
    wat::parse_str(text).expect("valid text")
}

/// A module of this many functions, each of which takes the compiler a while.
fn slow(functions: usize) -> Vec<u8> {
    let body = "(local.set 0 (i64.mul (local.get 0) (i64.add (local.get 1) (i64.load (i32.wrap_i64 (local.get 0))))))".repeat(2000);
    let function = format!("(func (param i64 i64) (result i64) {body} local.get 0)");
    component(&format!("(memory 1) {}", function.repeat(functions)), "")
}

fn file(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("component.wasm");
    std::fs::write(&path, bytes).expect("written");
    path
}

fn run(
    folder: &Path,
    bytes: &[u8],
    limits: &CompileLimits,
) -> Result<sandbox_aot::Artifact, CompileError> {
    let exe = std::env::current_exe().expect("this executable");
    compile(&exe, &file(folder, bytes), folder, limits)
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("the folder").count()
}

fn compiles(folder: &Path) {
    let bytes = component("(memory 1)", "");
    let first = run(folder, &bytes, &CompileLimits::default()).expect("compiled");
    let report = first.report.clone().expect("made now");
    let artifact = std::fs::read(&first.path).expect("there");
    assert_eq!(artifact.len() as u64, report.artifact_bytes);
    assert_eq!(
        wasmtime::Engine::detect_precompiled(&artifact),
        Some(wasmtime::Precompiled::Component)
    );
    if !report.without_network {
        println!(
            "note: this host has no unprivileged user namespaces, so a compiler keeps its network"
        );
    }
    let again = run(folder, &bytes, &CompileLimits::default()).expect("found");
    assert_eq!(again.imports, first.imports);
    assert_eq!(
        (again.path, again.key, again.report),
        (first.path, first.key, None)
    );
    // The component, its artifact and what it imports; nothing unfinished.
    assert_eq!(files(folder), 3);
}

fn rejections(folder: &Path) {
    let rejected = |bytes: &[u8]| match run(folder, bytes, &CompileLimits::default()) {
        Err(CompileError::Rejected(rejection)) => rejection,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(rejected(b""), Rejection::Empty);
    assert_eq!(rejected(b"\x7fELF"), Rejection::Elf);
    assert!(matches!(
        rejected(&component("", "")[..40]),
        Rejection::Truncated { .. }
    ));
    let unknown = component(
        "",
        r#"(import "acme:a/b@1.0.0" (instance (export "c" (func))))"#,
    );
    assert!(rejected(&unknown).to_string().contains("acme:a/b@1.0.0"));
    // A body that only the compiler's validation looks at.
    let module = component("(func (result i32) i32.const 7)", "");
    let at = module
        .windows(2)
        .position(|pair| pair == [0x41, 7])
        .expect("the constant");
    let mut broken = module.clone();
    broken[at] = 0x45;
    assert!(matches!(rejected(&broken), Rejection::Invalid { .. }));
    assert_eq!(files(folder), 1, "nothing is left of a rejected component");

    let large = folder.join("large.wasm");
    std::fs::File::create(&large)
        .and_then(|file| file.set_len(300 << 20))
        .expect("a sparse file");
    let exe = std::env::current_exe().expect("this executable");
    let error = compile(&exe, &large, folder, &CompileLimits::default()).expect_err("too large");
    assert!(matches!(
        error,
        CompileError::Rejected(Rejection::TooLarge { .. })
    ));
}

fn memories(folder: &Path) {
    let instances = "(core instance (instantiate $one))".repeat(101);
    let bytes = component("", &format!("(core module $one (memory 1)) {instances}"));
    let error = run(folder, &bytes, &CompileLimits::default()).expect_err("too many");
    assert!(
        matches!(
            error,
            CompileError::Rejected(Rejection::TooManyMemories { count: 101, .. })
        ),
        "{error}"
    );
}

fn memory(folder: &Path) {
    let limits = CompileLimits {
        memory_bytes: 160 << 20,
        ..CompileLimits::default()
    };
    let error = run(folder, &slow(400), &limits).expect_err("too little memory");
    assert!(matches!(error, CompileError::OutOfMemory { .. }), "{error}");
}

fn time(folder: &Path) {
    let limits = CompileLimits {
        wall: Duration::from_millis(300),
        ..CompileLimits::default()
    };
    let begun = Instant::now();
    let error = run(folder, &slow(1500), &limits).expect_err("too little time");
    assert!(matches!(error, CompileError::Timeout { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(files(folder), 1);
}

fn size(folder: &Path) {
    let limits = CompileLimits {
        artifact_bytes: 4096,
        ..CompileLimits::default()
    };
    let error = run(folder, &slow(10), &limits).expect_err("too large");
    assert!(
        matches!(error, CompileError::ArtifactTooLarge { limit: 4096 }),
        "{error}"
    );
}

fn silent(folder: &Path) {
    let error = compile(
        Path::new("/bin/true"),
        &file(folder, b"x"),
        folder,
        &CompileLimits::default(),
    );
    assert!(
        matches!(error, Err(CompileError::Crashed { .. })),
        "{error:?}"
    );
    let error = compile(
        Path::new("/nonexistent"),
        &file(folder, b"x"),
        folder,
        &CompileLimits::default(),
    );
    assert!(
        matches!(
            error,
            Err(CompileError::Io {
                what: "start the compiler",
                ..
            })
        ),
        "{error:?}"
    );
}
