//! The page tables, edited from ring 3.
//!
//! To make a page present, or to allow more on it, needs no flush: the processor asks the tables again before it
//! faults. To take away needs [`flush`], an exit to the VMM, and so is rare and done in batches.

use crate::kernel::{frames, port};
use sandbox_abi::boot::field;
use sandbox_abi::layout::{self, LARGE_PAGE, PAGE};

/// The page is there and ring 3 may use it. It counts as accessed from the start, or else the processor would have to note
/// that it is, and where it shadows page tables KVM would not translate its neighbours with it.
pub const PRESENT: u64 = 0b101 | 1 << 5;
/// It may be written, and counts as dirty.
pub const WRITE: u64 = 0b10 | 1 << 6;
/// It is a large page.
const LARGE: u64 = 1 << 7;
/// Ours: the first write makes a private copy.
pub const COPY_ON_WRITE: u64 = 1 << 9;
/// It must not be executed.
pub const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// No frame for a page table.
#[derive(Debug)]
pub struct NoTables;

/// The physical address in an entry.
pub fn address(entry: u64) -> u64 {
    entry & ADDRESS
}

/// The table below an entry, made if there is none; of a large page, one that maps the same.
fn below(entry: *mut u64, root: bool, index: u64) -> Result<u64, NoTables> {
    // SAFETY: `entry` lies in a table of ours; tables are in the system slot or in RAM, mapped one to one and writable.
    let value = unsafe { entry.read_volatile() };
    if value & PRESENT == PRESENT && value & LARGE == 0 {
        return Ok(address(value));
    }
    let table = frames::take_system().ok_or(NoTables)?;
    // Even if it is zeroes: where KVM shadows page tables, what it remembers of this page from before the VM was put back it
    // forgets by this.
    frames::zero(table);
    let table = table.0;
    if value & PRESENT == PRESENT {
        for n in 0..512 {
            let page = (value & !LARGE) + n * PAGE;
            // SAFETY: an entry of the new table.
            unsafe { ((table + n * 8) as *mut u64).write_volatile(page) };
        }
    }
    let value = table | PRESENT | WRITE;
    // SAFETY: as above.
    unsafe { entry.write_volatile(value) };
    if root {
        let alternative = (layout::PML4_ALT + index * 8) as *mut u64;
        // SAFETY: the other root has the same shape, and keeps the same content.
        unsafe { alternative.write_volatile(value) };
    }
    Ok(table)
}

fn walk(va: u64, levels: &[u64], last: u64) -> Result<*mut u64, NoTables> {
    let mut table = layout::PML4;
    for (n, shift) in levels.iter().enumerate() {
        let index = (va >> shift) & 511;
        table = below((table + index * 8) as *mut u64, n == 0, index)?;
    }
    Ok((table + ((va >> last) & 511) * 8) as *mut u64)
}

/// The entry of the page at `va`; tables on the way are made.
pub fn entry(va: u64) -> Result<*mut u64, NoTables> {
    walk(va, &[39, 30, 21], 12)
}

/// The entry of the table of pages that covers the large page at `va`; tables on the way are made.
pub fn large_entry(va: u64) -> Result<*mut u64, NoTables> {
    walk(va, &[39, 30], 21)
}

/// The entry's value, or 0 if there is no table for it.
pub fn lookup(va: u64) -> u64 {
    let mut table = layout::PML4;
    for shift in [39, 30, 21, 12] {
        // SAFETY: as in `below`.
        let value = unsafe { *((table + ((va >> shift) & 511) * 8) as *const u64) };
        if shift == 12 || value & PRESENT != PRESENT || value & LARGE != 0 {
            return value;
        }
        table = address(value);
    }
    0
}

/// Sets the entry of the page at `va`.
pub fn set(va: u64, value: u64) -> Result<(), NoTables> {
    let entry = entry(va)?;
    // SAFETY: `entry` lies in a table of ours.
    unsafe { entry.write_volatile(value) };
    Ok(())
}

/// Calls `f` for each entry from `start` to `end` with its address; what it returns is written.
pub fn update(start: u64, end: u64, mut f: impl FnMut(u64, u64) -> u64) -> Result<(), NoTables> {
    let mut va = start;
    while va < end {
        let mut at = entry(va)?;
        // One walk for each table of 512 entries.
        let stop = ((va & !(LARGE_PAGE - 1)) + LARGE_PAGE).min(end);
        while va < stop {
            // SAFETY: `at` stays within the table that `entry` found, up to its last entry.
            unsafe {
                let old = at.read();
                let new = f(va, old);
                if new != old {
                    at.write_volatile(new);
                }
                at = at.add(1);
            }
            va += PAGE;
        }
    }
    Ok(())
}

/// Maps what the VMM left: the rings, and the artifact (read-only, not executable).
pub fn init() -> Result<(), NoTables> {
    update(layout::RINGS, layout::RINGS + layout::RINGS_LEN, |va, _| {
        va | PRESENT | WRITE | NO_EXECUTE
    })?;
    let artifact = crate::kernel::boot::get(field::ARTIFACT_LEN).next_multiple_of(PAGE);
    let large = layout::ARTIFACT + (artifact & !(LARGE_PAGE - 1));
    for va in (layout::ARTIFACT..large).step_by(LARGE_PAGE as usize) {
        let at = large_entry(va)?;
        // SAFETY: `at` lies in a table of ours.
        unsafe { at.write_volatile(va | PRESENT | LARGE | NO_EXECUTE) };
    }
    update(large, layout::ARTIFACT + artifact, |va, _| {
        va | PRESENT | NO_EXECUTE
    })
}

/// Lets code be executed, and not be written; large pages stay what they are where they hold nothing else.
pub fn make_executable(start: u64, end: u64) -> Result<(), NoTables> {
    let allow = |entry: u64| entry & !(NO_EXECUTE | WRITE);
    let mut va = start;
    while va < end {
        let stop = ((va & !(LARGE_PAGE - 1)) + LARGE_PAGE).min(end);
        let at = large_entry(va)?;
        // SAFETY: `at` lies in a table of ours.
        let entry = unsafe { at.read_volatile() };
        if entry & LARGE != 0 && stop - va == LARGE_PAGE {
            // SAFETY: as above.
            unsafe { at.write_volatile(allow(entry)) };
        } else {
            update(va, stop, |_, entry| allow(entry))?;
        }
        va = stop;
    }
    Ok(())
}

/// Maps RAM from `start` to `end`, one to one; both are multiples of a large page.
pub fn map_ram(start: u64, end: u64) -> Result<(), NoTables> {
    let mut va = start;
    while va < end {
        let at = large_entry(va)?;
        // SAFETY: `at` lies in a table of ours.
        unsafe { at.write_volatile(va | PRESENT | WRITE | LARGE | NO_EXECUTE) };
        va += LARGE_PAGE;
    }
    Ok(())
}

/// Forgets all cached translations.
pub fn flush() {
    port::flush();
}
