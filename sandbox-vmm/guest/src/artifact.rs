//! The artifact: an ELF file as wasmtime's compiler wrote it, read where it lies.

use crate::kernel::boot;
use alloc::vec::Vec;
use core::ops::Range;
use sandbox_abi::boot::field;
use sandbox_abi::layout::ARTIFACT;

/// The artifact's bytes.
pub fn bytes() -> &'static [u8] {
    // SAFETY: the VMM mapped so many bytes there, read-only, for as long as the VM lives.
    unsafe {
        core::slice::from_raw_parts(
            ARTIFACT as *const u8,
            boot::get(field::ARTIFACT_LEN) as usize,
        )
    }
}

/// Where the artifact's machine code lies.
#[derive(Debug)]
pub struct Code {
    /// All of it.
    pub text: Range<u64>,
    /// An instruction that may trap; 0 if there is none.
    pub trapping: u64,
    /// The functions that are called by the host and call wasm, in order.
    pub entries: Vec<Range<u64>>,
}

impl Code {
    /// Finds the sections `.text`, `.wasmtime.traps` (`u32` number of entries, `u32` number of blocks, then for each block
    /// the `u32` offset of its first trapping instruction, and where it is encoded: `wasmtime_environ`'s
    /// `TrapEncodingBuilder`), and `.symtab` with its names.
    pub fn find(elf: &'static [u8]) -> Option<Code> {
        let sections = Sections::of(elf)?;
        let text = sections.named(b".text")?;
        let start = text.as_ptr().addr() as u64;
        let trapping = sections
            .named(b".wasmtime.traps")
            .filter(|traps| number::<4>(traps, 0) != Some(0))
            .and_then(|traps| number::<4>(traps, 8));
        let symbols = sections.named(b".symtab").unwrap_or_default();
        let names = sections.named(b".strtab").unwrap_or_default();
        let mut entries: Vec<_> = symbols
            .chunks_exact(SYMBOL)
            .filter_map(|symbol| {
                let name = string(names, number::<4>(symbol, 0)?)?;
                let value = start.checked_add(number::<8>(symbol, 8)?)?;
                let end = value.checked_add(number::<8>(symbol, 16)?)?;
                is_entry(name).then_some(value..end)
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.start);
        Some(Code {
            text: start..start + text.len() as u64,
            trapping: trapping.map_or(0, |t| start + t),
            entries,
        })
    }

    /// Whether this instruction is one of a function by which the host calls wasm.
    pub fn is_entry(&self, rip: u64) -> bool {
        let after = self.entries.partition_point(|entry| entry.start <= rip);
        let before = after.checked_sub(1).and_then(|n| self.entries.get(n));
        before.is_some_and(|entry| entry.contains(&rip))
    }
}

/// Bytes of a symbol: name (4), kind (4), value (8), size (8).
const SYMBOL: usize = 24;

/// Whether this is wasmtime's name for a function by which the host calls wasm (`FuncKey` of `wasmtime_environ`). Names
/// that the component gives its functions come after other words.
fn is_entry(name: &[u8]) -> bool {
    let kind = |group: &[u8]| {
        let rest = name.strip_prefix(group)?;
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        rest.get(digits..)
    };
    let is = |group: &[u8], word: &[u8]| kind(group).is_some_and(|k| k.starts_with(word));
    is(b"wasm[", b"]::array_to_wasm_trampoline[")
        || is(b"component-trampolines[", b"]-array-call-")
        || is(b"module_start[", b"]::Array")
}

/// The sections of an ELF file.
struct Sections {
    elf: &'static [u8],
    table: usize,
    size: usize,
    count: usize,
    names: &'static [u8],
}

impl Sections {
    fn of(elf: &'static [u8]) -> Option<Sections> {
        let mut sections = Sections {
            elf,
            table: number::<8>(elf, 0x28)? as usize,
            size: number::<2>(elf, 0x3a)? as usize,
            count: number::<2>(elf, 0x3c)? as usize,
            names: &[],
        };
        sections.names = sections.section(number::<2>(elf, 0x3e)? as usize)?.1;
        Some(sections)
    }

    /// Where its name is, and its content.
    fn section(&self, n: usize) -> Option<(u64, &'static [u8])> {
        let at = self.table.checked_add(n.checked_mul(self.size)?)?;
        let start = number::<8>(self.elf, at.checked_add(0x18)?)? as usize;
        let len = number::<8>(self.elf, at.checked_add(0x20)?)? as usize;
        let content = self.elf.get(start..start.checked_add(len)?)?;
        Some((number::<4>(self.elf, at)?, content))
    }

    fn named(&self, name: &[u8]) -> Option<&'static [u8]> {
        let mut sections = (0..self.count).filter_map(|n| self.section(n));
        let section = sections.find(|(at, _)| string(self.names, *at) == Some(name))?;
        Some(section.1)
    }
}

fn string(strings: &'static [u8], at: u64) -> Option<&'static [u8]> {
    strings.get(at as usize..)?.split(|b| *b == 0).next()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..N)?
        .copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(word))
}
