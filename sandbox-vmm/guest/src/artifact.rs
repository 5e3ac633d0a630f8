//! The artifact: an ELF file as wasmtime's compiler wrote it, read where it lies.

use crate::kernel::boot;
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
    /// First address.
    pub start: u64,
    /// End.
    pub end: u64,
    /// An instruction that may trap.
    pub trapping: u64,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..N)?
        .copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(word))
}

impl Code {
    /// Finds the sections `.text` and `.wasmtime.traps` (`u32` number of entries, `u32`
    /// number of blocks, then for each block the `u32` offset of its first trapping instruction, and where it is encoded:
    /// `wasmtime_environ`'s `TrapEncodingBuilder`).
    pub fn find(elf: &[u8]) -> Option<Code> {
        let table = number::<8>(elf, 0x28)? as usize;
        let size = number::<2>(elf, 0x3a)? as usize;
        let count = number::<2>(elf, 0x3c)? as usize;
        let names = number::<2>(elf, 0x3e)? as usize;
        let section = |n: usize| {
            let at = table.checked_add(n.checked_mul(size)?)?;
            let start = number::<8>(elf, at.checked_add(0x18)?)? as usize;
            let len = number::<8>(elf, at.checked_add(0x20)?)? as usize;
            Some((
                number::<4>(elf, at)? as usize,
                elf.get(start..start.checked_add(len)?)?,
            ))
        };
        let (_, names) = section(names)?;
        let (mut text, mut traps) = (None, None);
        for n in 0..count {
            let Some((name, content)) = section(n) else {
                continue;
            };
            let name = names.get(name..)?.split(|b| *b == 0).next()?;
            match name {
                b".text" => text = Some(content),
                b".wasmtime.traps" => traps = Some(content),
                _ => {}
            }
        }
        let text = text?;
        let start = text.as_ptr().addr() as u64;
        let trapping =
            traps.and_then(|t| number::<4>(t, 8).filter(|_| number::<4>(t, 0) != Some(0)));
        Some(Code {
            start,
            end: start + text.len() as u64,
            trapping: trapping.map_or(0, |t| start + t),
        })
    }
}
