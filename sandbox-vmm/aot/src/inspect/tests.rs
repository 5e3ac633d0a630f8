//! Every kind of file that people deploy by mistake, and some that they should not get away with.

use super::*;

fn component(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {body})")).unwrap()
}

const EXPORT: &str = r#"
    (type $handle (func))
    (component $h (import "f" (func $f)) (export "handle" (func $f)))
    (core module $m (func (export "handle")))
    (core instance $i (instantiate $m))
    (func $f (canon lift (core func $i "handle")))
    (instance $e (instantiate $h (with "f" (func $f))))
    (export "wasi:http/incoming-handler@0.2.3" (instance $e))"#;

fn inspected(wat: &str) -> Result<(), Rejection> {
    inspect(&component(wat))
}

#[test]
fn a_handler_is_accepted() {
    assert_eq!(inspected(EXPORT), Ok(()));
}

#[test]
fn files_that_are_no_components() {
    assert_eq!(inspect(b""), Err(Rejection::Empty));
    assert_eq!(inspect(b"\0as"), Err(Rejection::Truncated { offset: 3 }));
    assert_eq!(inspect(b"\x7fELF\x02\x01\x01"), Err(Rejection::Elf));
    for text in [
        "(module)",
        ";; a comment\n\n  (component\n",
        "( module $x",
        "(\nmodule)",
    ] {
        assert_eq!(inspect(text.as_bytes()), Err(Rejection::Text), "{text}");
    }
    assert_eq!(
        inspect(&wat::parse_str("(module)").unwrap()),
        Err(Rejection::CoreModule)
    );
    assert!(matches!(
        inspect(b"\x89PNG\r\n\x1a\n"),
        Err(Rejection::NotWasm { .. })
    ));
    assert!(matches!(
        inspect(b"\0asm\x0e\0\x01\0"),
        Err(Rejection::Invalid { .. })
    ));
    assert!(matches!(
        inspect(b"(hello)"),
        Err(Rejection::NotWasm { .. })
    ));
}

#[test]
fn every_truncation_is_an_error() {
    let whole = component(EXPORT);
    let mut accepted = 0;
    for length in 0..whole.len() {
        let told = match inspect(&whole[..length]) {
            // A cut between two sections leaves a whole, smaller component: without its export, or only without its
            // section of names.
            Ok(()) => {
                accepted += 1;
                continue;
            }
            Err(error) => error,
        };
        let fits = matches!(
            told,
            Rejection::Empty | Rejection::Truncated { .. } | Rejection::NoHandler { .. }
        );
        assert!(fits, "{length}: {told:?}");
    }
    assert!(accepted <= 1);
}

#[test]
fn garbage_behind_the_header_is_an_error() {
    let mut bytes = component(EXPORT);
    for at in 8..bytes.len() {
        let before = bytes[at];
        bytes[at] ^= 0xff;
        let _ = inspect(&bytes);
        bytes[at] = before;
    }
    assert_eq!(inspect(&bytes), Ok(()));
}

#[test]
fn wrong_world() {
    assert_eq!(inspected(""), Err(Rejection::NoHandler { exports: vec![] }));
    let command = EXPORT.replace("wasi:http/incoming-handler@0.2.3", "wasi:cli/run@0.2.3");
    let error = inspected(&command).unwrap_err();
    assert!(
        error.to_string().contains("it exports wasi:cli/run@0.2.3"),
        "{error}"
    );
    let next = EXPORT.replace(
        "wasi:http/incoming-handler@0.2.3",
        "wasi:http/handler@0.3.0",
    );
    let error = inspected(&next).unwrap_err();
    assert!(
        error.to_string().contains("WASI 0.3 is not supported yet"),
        "{error}"
    );
    let preview = EXPORT.replace("@0.2.3", "@0.2.0-rc-2023-12-05");
    assert!(matches!(
        inspected(&preview),
        Err(Rejection::NoHandler { .. })
    ));
}

#[test]
fn imports_by_name() {
    // A resource that an interface takes from another appears in both.
    let known = r#"
        (import "wasi:io/streams@0.2.1" (instance $streams (export "output-stream" (type (sub resource)))))
        (alias export $streams "output-stream" (type $stream))
        (import "wasi:cli/stdout@0.2.9" (instance
            (export "output-stream" (type $s (eq $stream)))
            (export "get-stdout" (func (result (own $s))))))
        (import "wasi:random/random@0.2.99" (instance (export "get-random-u64" (func (result u64)))))"#;
    assert_eq!(inspected(&format!("{known}{EXPORT}")), Ok(()));
    let unknown = r#"
        (import "wasi:random/random@0.2.0" (instance (export "get-luck" (func (result u64)))))
        (import "acme:billing/charge@1.0.0" (instance (export "charge" (func))))
        (import "plain" (func))"#;
    let error = inspected(&format!("{unknown}{EXPORT}")).unwrap_err();
    let text = error.to_string();
    for name in [
        "get-luck of wasi:random/random@0.2.0",
        "acme:billing/charge@1.0.0",
        "plain",
    ] {
        assert!(text.contains(name), "{text}");
    }
    assert_eq!(error.code(), "component-unknown-import");
}

#[test]
fn an_unknown_interface_of_types_alone_needs_nobody() {
    let types = r#"(import "acme:geo/types@1.0.0" (instance
        (type $p (record (field "x" u32))) (export "point" (type (eq $p)))))"#;
    assert_eq!(inspected(&format!("{types}{EXPORT}")), Ok(()));
}

#[test]
fn many_memories() {
    let module = format!("(core module {})", "(memory 1)".repeat(5000));
    let error = inspected(&format!("{module}{EXPORT}")).unwrap_err();
    assert_eq!(
        error,
        Rejection::TooManyMemories {
            count: 5000,
            limit: MAX_MEMORIES
        }
    );
    let modules = "(core module (memory 1))".repeat(101);
    assert!(matches!(
        inspected(&format!("{modules}{EXPORT}")),
        Err(Rejection::TooManyMemories { count: 101, .. })
    ));
}

#[test]
fn long_lists_are_cut_short() {
    let exports: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
    let text = Rejection::NoHandler { exports }.to_string();
    assert!(text.contains("and 12 more"), "{text}");

    let import = |n: usize| format!(r#"(import "f{n}-{}" (func))"#, "x".repeat(500));
    let imports: String = (0..1000).map(import).collect();
    let error = inspected(&format!("{imports}{EXPORT}")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("and many more") && text.len() < 3000,
        "{text}"
    );
    assert!(serde_json::to_string(&error).unwrap().len() < 64 << 10);
}
