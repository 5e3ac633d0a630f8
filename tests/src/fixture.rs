//! Components made from text when a test needs them: no compiler for another language, no binary in the
//! tree, and every instruction of a fault in plain sight.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, UnresolvedPackageGroup};

/// The packages of WASI in the order in which they build on each other.
const PACKAGES: [&str; 8] = [
    "io",
    "clocks",
    "random",
    "filesystem",
    "sockets",
    "cli",
    "config",
    "http",
];

/// Address of the first text in a fixture's memory.
const TEXTS: usize = 1024;

/// The component that shows one behaviour a path: see `fixture/probe.wat` for the paths.
#[must_use]
pub fn probe() -> &'static [u8] {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    PROBE.get_or_init(|| {
        handler(&with_dispatch(&without_comments(include_str!(
            "fixture/probe.wat"
        ))))
    })
}

/// As [`probe`]; its instances ask `wasi:config` for `key` when they are made, and `/config-first` says what they got.
#[must_use]
pub fn configured_first(key: &str) -> Vec<u8> {
    let key = escape(key);
    let more = format!(
        "(global $first (mut i32) (i32.const 0))
         (global $first-len (mut i32) (i32.const 0))
         (func (export \"_initialize\")
           (call $config-get str\"{key}\" (i32.const 16))
           (if (i32.load8_u (i32.const 20)) (then
             (global.set $first (i32.load (i32.const 24)))
             (global.set $first-len (i32.load (i32.const 28))))))
         (func $/config-first (call $text (i32.const 200) (global.get $first) (global.get $first-len)))"
    );
    let source = without_comments(include_str!("fixture/probe.wat"));
    handler(&with_dispatch(&with_more(&source, &more)))
}

/// A component that answers every request with 200 and this text.
#[must_use]
pub fn saying(text: &str) -> Vec<u8> {
    saying_with(text, "")
}

/// As [`saying`], once the proposals in `fixture/proposals.wat` have done what they should.
#[must_use]
pub fn with_proposals(text: &str) -> Vec<u8> {
    let proposals = without_comments(include_str!("fixture/proposals.wat"));
    saying_with(text, &proposals)
}

/// A component that says what of its instance is not as in a new one, and then changes all of it: see
/// `fixture/dirtying.wat`. What it is asked for by `POST` it never answers, and changes things for ever.
#[must_use]
pub fn dirtying() -> Vec<u8> {
    let more = without_comments(include_str!("fixture/dirtying.wat"));
    saying_as("(call $look (local.get $request))", &more)
}

/// As [`dirtying`], but each instance asks for the time when it is made, so that none can be made ahead of its request.
#[must_use]
pub fn dirtying_made_anew() -> Vec<u8> {
    let more = without_comments(include_str!("fixture/dirtying.wat"));
    let begin = "(func $begin";
    let more = more.replacen(begin, &format!("{begin} (drop (call $now))"), 1);
    let source = saying_source("(call $look (local.get $request))", &more);
    let import = "(import \"wasi:clocks/monotonic-clock@V\" \"now\" (func $now (result i64)))";
    handler(&source.replacen("(module", &format!("(module {import}"), 1))
}

/// A component that writes a file of so many bytes into its scratch folder: it answers 200, or 507 where that is full.
#[must_use]
pub fn scratching(bytes: u64) -> Vec<u8> {
    let core = without_comments(include_str!("fixture/scratching.wat"));
    component(
        &core.replace("(@bytes)", &bytes.to_string()),
        "import wasi:filesystem/preopens@V; import wasi:filesystem/types@V; import wasi:http/types@V;
         export wasi:http/incoming-handler@V;",
    )
}

/// As [`saying`], whose instances print `first` when they are made; and then trap, if they `fail`.
#[must_use]
pub fn printing_first(text: &str, first: &str, fail: bool) -> Vec<u8> {
    let print = format!(
        "(call $write (call $stdout) str\"{}\" (i32.const 0))",
        escape(first)
    );
    let end = if fail { "unreachable" } else { "" };
    saying_with(
        text,
        &format!("(func (export \"_initialize\") {print} {end})"),
    )
}

/// As [`saying`], but so many of 100 requests trap, at random.
#[must_use]
pub fn saying_mostly(text: &str, percent: u32) -> Vec<u8> {
    let source = without_comments(include_str!("fixture/saying.wat"));
    let source = source.replace("(@text)", &format!("str\"{}\"", escape(text)));
    let import = "(import \"wasi:random/random@V\" \"get-random-u64\" (func $random (result i64)))";
    let source = source.replacen("(module", &format!("(module {import}"), 1);
    let first = "(local.set $answer (call $response";
    let trap = format!(
        "(if (i64.lt_u (i64.rem_u (call $random) (i64.const 100)) (i64.const {percent})) (then unreachable))"
    );
    handler(&source.replacen(first, &format!("{trap} {first}"), 1))
}

/// As [`saying`], with more in its module.
fn saying_with(text: &str, more: &str) -> Vec<u8> {
    saying_as(&format!("str\"{}\"", escape(text)), more)
}

/// As [`saying_with`], with code in the text's place that gives its address and length.
fn saying_as(text: &str, more: &str) -> Vec<u8> {
    handler(&saying_source(text, more))
}

fn saying_source(text: &str, more: &str) -> String {
    let source = without_comments(include_str!("fixture/saying.wat"));
    let source = source.replace("(@text)", text);
    with_more(&source, more)
}

/// A module with more at its end.
fn with_more(source: &str, more: &str) -> String {
    let (begin, end) = source.split_at(source.rfind(')').unwrap());
    format!("{begin}{more}{end}")
}

/// A component that exports `run` and no handler.
#[must_use]
pub fn without_handler() -> Vec<u8> {
    let core = "(module (memory (export \"memory\") 1) (func (export \"run\")))";
    component(core, "export run: func();")
}

/// A component with a handler that imports `nowhere:else/door`, which no node has.
#[must_use]
pub fn with_unknown_import() -> Vec<u8> {
    let core = r#"(module
        (import "nowhere:else/door" "knock" (func $knock))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "wasi:http/incoming-handler@V#handle") (param i32 i32) (call $knock)))"#;
    component(
        core,
        "import nowhere:else/door; export wasi:http/incoming-handler@V;",
    )
}

/// A component with a handler, and `instances` instances of a module that has `memories` memories of one page.
#[must_use]
pub fn with_memories(instances: u32, memories: u32) -> Vec<u8> {
    let module = module_with_memories(memories);
    let mut list = leb(instances);
    let index = leb(core_modules(probe()));
    for _ in 0..instances {
        list.push(0); // instantiate a module
        list.extend_from_slice(&index);
        list.push(0); // no arguments
    }
    with_sections(&[(1, &module), (2, &list)])
}

/// A core module with `count` memories of one page.
fn module_with_memories(count: u32) -> Vec<u8> {
    // By hand: the text format's parser is no judge of whether so many are allowed.
    let mut memories = leb(count);
    for _ in 0..count {
        memories.extend_from_slice(&[0, 1]); // no maximum, one page
    }
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.push(5);
    module.extend(leb(u32::try_from(memories.len()).unwrap()));
    module.extend(memories);
    module
}

/// A core module: valid WebAssembly, but no component.
#[must_use]
pub fn core_module() -> Vec<u8> {
    wat::parse_str("(module (memory (export \"memory\") 1) (func (export \"_start\")))").unwrap()
}

/// A component whose core module is `core` (text), with the handler as its export.
#[must_use]
pub fn handler(core: &str) -> Vec<u8> {
    component(
        core,
        "import wasi:config/store@0.2.0-rc.1; import wasi:cli/environment@V; import wasi:cli/exit@V; import wasi:cli/stdout@V; import wasi:cli/stderr@V;
         import wasi:clocks/monotonic-clock@V; import wasi:random/random@V; import wasi:random/insecure-seed@V; import wasi:io/poll@V; import wasi:io/streams@V;
         import wasi:http/types@V; import wasi:http/outgoing-handler@V; export wasi:http/incoming-handler@V;",
    )
}

/// A component of this core module (text) in this world.
fn component(core: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox-vmm/guest/wit/deps");
    for package in PACKAGES {
        let file = folder.join(package).with_extension("wit");
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        let group = UnresolvedPackageGroup::parse(&file, &text).unwrap();
        resolve.push_group(group).unwrap();
    }
    let version = wasi_version(&resolve);
    let world = world.replace("@V", &version);
    let wit = format!("package test:fixture; world fixture {{ {world} }}");
    let wit = match world.contains("nowhere:else") {
        true => format!("{wit} package nowhere:else {{ interface door {{ knock: func(); }} }}"),
        false => wit,
    };
    let package = resolve.push_str("fixture.wit", &wit).unwrap();
    let world = resolve.select_world(&[package], Some("fixture")).unwrap();
    let core = with_texts(&core.replace("@V", &version));
    let mut module = wat::parse_str(&core).unwrap_or_else(|error| panic!("fixture: {error}"));
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let mut encoder = ComponentEncoder::default();
    encoder = encoder.module(&module).unwrap().validate(true);
    encoder.encode().unwrap()
}

/// `@` and the version of the WASI packages at hand.
fn wasi_version(resolve: &Resolve) -> String {
    let mut names = resolve.packages.iter().map(|(_, package)| &package.name);
    let http = names.find(|name| name.namespace == "wasi" && name.name == "http");
    format!("@{}", http.and_then(|n| n.version.as_ref()).unwrap())
}

/// The source without its comments, which may speak of what is replaced in the rest.
fn without_comments(source: &str) -> String {
    let code = source
        .lines()
        .map(|line| line.split(";;").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// Puts calls of each function whose name begins with `/` in place of `(@dispatch)`.
fn with_dispatch(source: &str) -> String {
    let mut calls = String::new();
    for part in source.split("(func $/").skip(1) {
        let name = part.split([' ', ')', '\n']).next().unwrap();
        writeln!(
            calls,
            "(if (call $is str\"/{name}\") (then (call $/{name}) (return)))"
        )
        .unwrap();
    }
    source.replace("(@dispatch)", &calls)
}

/// Puts address and length in place of each `str"text"`, and the texts into the module's memory.
fn with_texts(source: &str) -> String {
    let mut out = String::new();
    let mut data = String::new();
    let mut at = TEXTS;
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("str\"") {
        let end = after
            .char_indices()
            .scan(false, |escaped, (i, c)| {
                let ends = c == '"' && !*escaped;
                *escaped = c == '\\' && !*escaped;
                Some((i, ends))
            })
            .find_map(|(i, ends)| ends.then_some(i));
        let (text, after) = after.split_at(end.expect("a text of a fixture has an end"));
        let len = text.len() - escapes(text);
        write!(out, "{before}(i32.const {at}) (i32.const {len})").unwrap();
        writeln!(data, "(data (i32.const {at}) \"{text}\")").unwrap();
        at += len;
        rest = &after[1..];
    }
    out.push_str(rest);
    assert!(at < 16_384, "the texts of a fixture overlap its buffers");
    let end = out.rfind(')').unwrap();
    out.insert_str(end, &data);
    out
}

/// How many characters the escapes in a text are longer than what they stand for.
fn escapes(text: &str) -> usize {
    let mut extra = 0;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char == '\\' {
            let hex = chars.next().is_some_and(|c| c.is_ascii_hexdigit());
            extra += 1 + usize::from(hex);
            if hex {
                chars.next();
            }
        }
    }
    extra
}

/// A text as the text format writes it between quotes.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b' '..=b'~' if !b"\"\\".contains(&byte) => out.push(char::from(byte)),
            _ => write!(out, "\\{byte:02x}").unwrap(),
        }
        out
    })
}

/// The probe with more sections at its end, each a number and its content.
fn with_sections(sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = probe().to_vec();
    for (id, content) in sections {
        bytes.push(*id);
        bytes.extend(leb(u32::try_from(content.len()).unwrap()));
        bytes.extend_from_slice(content);
    }
    bytes
}

/// Number of core modules at the top level of a component.
fn core_modules(component: &[u8]) -> u32 {
    let mut rest = &component[8..];
    let mut count = 0;
    while let Some((&id, after)) = rest.split_first() {
        let mut len = 0;
        let mut used = 0;
        for (i, byte) in after.iter().enumerate() {
            len |= usize::from(byte & 0x7f) << (7 * i);
            used = i + 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        count += u32::from(id == 1);
        rest = &after[used + len..];
    }
    count
}

/// An unsigned LEB128.
fn leb(mut value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixture_is_made() {
        for (name, bytes) in [
            ("probe", probe().to_vec()),
            ("configured first", configured_first("KEY")),
            ("saying", saying("a \"text\"\n")),
            ("with proposals", with_proposals("text")),
            ("dirtying", dirtying()),
            ("scratching", scratching(1)),
            ("printing first", printing_first("text", "first", true)),
            ("without handler", without_handler()),
            ("with unknown import", with_unknown_import()),
            ("with memories", with_memories(50, 100)),
        ] {
            assert_eq!(&bytes[..8], b"\0asm\x0d\0\x01\0", "{name}");
        }
    }

    #[test]
    fn escapes_count_for_one_byte() {
        assert_eq!(escapes(r"a\nb"), 1);
        assert_eq!(escapes(r"a\00b"), 2);
        assert_eq!(escapes(r#"\"\\"#), 2);
    }
}
