//! Where everything lies in a guest's physical memory. The low 4 GiB are mapped one to one.
//!
//! ```text
//! 0x0000_0000  system slot (private copy of the boot image)
//!   0x1000 GDT   0x2000 IDT   0x3000 TSS   0x6000 ring-0 stack   0x8000 boot page
//!   0x1_0000 page tables of the boot   0x4_0000 deployment configuration
//!   0x20_0000 guest runtime (ELF)
//! 0x1000_0000  artifact (read-only slot)
//! 0x7000_0000  rings (shared with the router)
//! 0x1_0000_0000  RAM: heap, stacks, page tables, wasm memories
//! ```

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Bytes in a large page.
pub const LARGE_PAGE: u64 = 2 << 20;

/// Bytes of the system slot, at guest-physical 0.
pub const SYSTEM_LEN: u64 = 16 << 20;
/// Global descriptor table.
pub const GDT: u64 = 0x1000;
/// Interrupt descriptor table; the guest fills it before it enables anything that can fault.
pub const IDT: u64 = 0x2000;
/// Task state segment; holds only the ring-0 stack pointer.
pub const TSS: u64 = 0x3000;
/// Top of the ring-0 stack, used by the exception stubs alone.
pub const RING0_STACK_TOP: u64 = 0x7000;
/// The boot page: see [`crate::boot`].
pub const BOOT: u64 = 0x8000;
/// Root of the page tables. A second root with the same entries follows at [`PML4_ALT`].
pub const PML4: u64 = 0x1_0000;
/// The other root: a change of root is how the VMM flushes the TLB.
pub const PML4_ALT: u64 = 0x1_1000;
/// First page for further page tables of the boot.
pub const BOOT_TABLES: u64 = 0x1_2000;
/// End of the page tables of the boot.
pub const BOOT_TABLES_END: u64 = 0x4_0000;
/// Deployment configuration, [`crate::config::Config`] encoded.
pub const CONFIG: u64 = 0x4_0000;
/// Most bytes of an encoded configuration.
pub const CONFIG_MAX: u64 = 0x10_0000;
/// Where the guest runtime is linked.
pub const RUNTIME: u64 = 0x20_0000;

/// The artifact, read-only.
pub const ARTIFACT: u64 = 0x1000_0000;
/// Most bytes of an artifact.
pub const ARTIFACT_MAX: u64 = 0x5000_0000;

/// The rings' memory, shared with the router.
pub const RINGS: u64 = 0x7000_0000;
/// Data bytes of one ring; a power of two, and more than the longest record.
pub const RING_LEN: u64 = 512 << 10;
/// Bytes of the rings' control page.
pub const RING_CONTROL: u64 = PAGE;
/// Bytes of the whole of the rings' memory: control page, host to guest, guest to host.
pub const RINGS_LEN: u64 = RING_CONTROL + 2 * RING_LEN;

/// Start of RAM.
pub const RAM: u64 = 0x1_0000_0000;
/// Most bytes of RAM.
pub const RAM_MAX: u64 = 64 << 30;
/// Least bytes of RAM: heap and stacks of an idle guest.
pub const RAM_MIN: u64 = 32 << 20;
/// Bytes of RAM that a VM has at first: each page of it costs the kernel a few bytes, whether it is used or not.
pub const RAM_FIRST: u64 = 16 << 20;

const _: () = assert!(CONFIG + CONFIG_MAX <= RUNTIME);
const _: () = assert!(RUNTIME < SYSTEM_LEN && SYSTEM_LEN <= ARTIFACT);
const _: () = assert!(ARTIFACT + ARTIFACT_MAX <= RINGS);
const _: () = assert!(RINGS + RINGS_LEN <= RAM);
const _: () = assert!(RING_LEN.is_power_of_two());
const _: () = assert!(RING_LEN > crate::message::MAX_PAYLOAD as u64 + 64);
const _: () = assert!(RAM_FIRST <= RAM_MIN && RAM_FIRST.is_multiple_of(LARGE_PAGE));
