//! The boot page: see [`sandbox_abi::boot`].

use sandbox_abi::layout;

/// Reads a field.
pub fn get(field: u64) -> u64 {
    // SAFETY: the VMM maps the boot page for reading and writing before the first instruction; `field` is one of the
    // aligned offsets of `sandbox_abi::boot::field`, all inside of the page.
    unsafe { core::ptr::read_volatile((layout::BOOT + field) as *const u64) }
}

/// Writes a field.
pub fn set(field: u64, value: u64) {
    // SAFETY: as in `get`.
    unsafe { core::ptr::write_volatile((layout::BOOT + field) as *mut u64, value) }
}

/// The encoded configuration.
pub fn config() -> &'static [u8] {
    let len = get(sandbox_abi::boot::field::CONFIG_LEN).min(layout::CONFIG_MAX) as usize;
    // SAFETY: the VMM wrote `len` bytes there, mapped them, and nobody writes them again.
    unsafe { core::slice::from_raw_parts(layout::CONFIG as *const u8, len) }
}
