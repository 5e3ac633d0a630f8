//! The page tables of the boot: the low 16 MiB by page, but for code or constants that have a large page for themselves,
//! and the first GiB of RAM, one to one.
//!
//! The guest maps everything else itself. No page is both writable and executable.

use sandbox_abi::layout;

/// Present, and reachable from ring 3; counts as accessed.
pub const PRESENT: u64 = 0b101 | 1 << 5;
/// May be written; counts as dirty.
pub const WRITE: u64 = 0b10 | 1 << 6;
/// Maps 2 MiB.
pub const LARGE: u64 = 1 << 7;
/// Must not be executed.
pub const NO_EXECUTE: u64 = 1 << 63;

/// A stretch of the system slot with one protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// First address, page-aligned.
    pub start: u64,
    /// End, page-aligned.
    pub end: u64,
    /// Flags of its pages.
    pub flags: u64,
}

const ENTRIES: u64 = 512;
const LOW_DIRECTORIES: u64 = layout::BOOT_TABLES;
const LOW_DIRECTORY: u64 = LOW_DIRECTORIES + layout::PAGE;
const RAM_DIRECTORY: u64 = LOW_DIRECTORY + layout::PAGE;
const LOW_PAGES: u64 = RAM_DIRECTORY + layout::PAGE;
const LOW_TABLES: u64 = layout::SYSTEM_LEN / layout::LARGE_PAGE;
const _: () = assert!(LOW_PAGES + LOW_TABLES * layout::PAGE <= layout::BOOT_TABLES_END);
const _: () = assert!(layout::RAM.is_multiple_of(1 << 30) && layout::RAM < 1 << 39);

/// The flags of the code or the constants that the large page at `start` holds, if it holds nothing else.
fn alone(stretches: &[Stretch], start: u64) -> Option<u64> {
    let end = start + layout::LARGE_PAGE;
    let mut inside = stretches.iter().filter(|s| s.start < end && s.end > start);
    match (inside.next(), inside.next()) {
        (Some(only), None) if only.flags & WRITE == 0 => Some(only.flags),
        _ => None,
    }
}

/// Writes the tables with `put(address, entry)`, for the stretches of the system slot and `ram` bytes of RAM.
pub fn write(stretches: &[Stretch], ram: u64, mut put: impl FnMut(u64, u64)) {
    let table = PRESENT | WRITE;
    put(layout::PML4, LOW_DIRECTORIES | table);
    put(layout::PML4_ALT, LOW_DIRECTORIES | table);
    put(LOW_DIRECTORIES, LOW_DIRECTORY | table);
    put(
        LOW_DIRECTORIES + (layout::RAM >> 30) * 8,
        RAM_DIRECTORY | table,
    );
    for n in 0..LOW_TABLES {
        let start = n * layout::LARGE_PAGE;
        let entry = match alone(stretches, start) {
            Some(flags) => start | flags | LARGE,
            None => (LOW_PAGES + n * layout::PAGE) | table,
        };
        put(LOW_DIRECTORY + n * 8, entry);
    }
    for stretch in stretches {
        let mut page = stretch.start;
        while page < stretch.end.min(layout::SYSTEM_LEN) {
            put(LOW_PAGES + page / layout::PAGE * 8, page | stretch.flags);
            page += layout::PAGE;
        }
    }
    for n in 0..(ram / layout::LARGE_PAGE).min(ENTRIES) {
        let address = layout::RAM + n * layout::LARGE_PAGE;
        put(
            RAM_DIRECTORY + n * 8,
            address | PRESENT | WRITE | LARGE | NO_EXECUTE,
        );
    }
}
