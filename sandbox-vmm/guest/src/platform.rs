//! The functions that wasmtime calls of its platform: see `sys/custom/capi.rs` of wasmtime. One file to audit.

use crate::kernel::{paging, sched, space, trap};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use sandbox_abi::layout::PAGE;
use wasmtime::CustomCodeMemory;

const READ_WRITE: u32 = 0b11;

/// An image: pages of the artifact, which stay where they are.
struct Image(u64);

#[unsafe(no_mangle)]
extern "C" fn wasmtime_mmap_new(size: usize, protection: u32, result: &mut *mut u8) -> i32 {
    let Ok(base) = space::reserve(size as u64) else {
        return -1;
    };
    if protection & READ_WRITE == READ_WRITE && space::open(base, size as u64).is_err() {
        return -1;
    }
    *result = base as *mut u8;
    0
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_mmap_remap(_: *mut u8, _: usize, _: u32) -> i32 {
    // Only the pooling allocator asks for it, and the guest has none.
    -1
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_munmap(base: *mut u8, _: usize) -> i32 {
    // An error would be a panic; a range that was never handed out cannot come back.
    space::release(base.addr() as u64).map_or(-1, |()| 0)
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_mprotect(start: *mut u8, size: usize, protection: u32) -> i32 {
    if protection & READ_WRITE != READ_WRITE {
        return -1;
    }
    space::open(start.addr() as u64, size as u64).map_or(-1, |()| 0)
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_page_size() -> usize {
    PAGE as usize
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_memory_image_new(
    from: *const u8,
    len: usize,
    result: &mut *mut Image,
) -> i32 {
    let from = from.addr() as u64;
    let artifact = sandbox_abi::layout::ARTIFACT..sandbox_abi::layout::RINGS;
    // Other memory than the artifact's would have to be copied: wasmtime then writes the data itself.
    *result = if artifact.contains(&from) && artifact.contains(&(from + len as u64)) {
        Box::into_raw(Box::new(Image(from)))
    } else {
        core::ptr::null_mut()
    };
    0
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_memory_image_map_at(image: *mut Image, at: *mut u8, len: usize) -> i32 {
    // SAFETY: wasmtime passes what `wasmtime_memory_image_new` made and has not freed.
    let from = unsafe { (*image).0 };
    space::show(from, at.addr() as u64, len as u64).map_or(-1, |()| 0)
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_memory_image_free(image: *mut Image) {
    // SAFETY: wasmtime passes what `wasmtime_memory_image_new` made, once.
    drop(unsafe { Box::from_raw(image) });
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_init_traps(handler: extern "C" fn(usize, usize, bool, usize)) -> i32 {
    trap::set_handler(handler);
    0
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_get(slot: usize) -> *mut u8 {
    sched::tls(slot)
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_set(slot: usize, value: *mut u8) {
    sched::set_tls(slot, value);
}

// There is one processor, and threads switch only where they park, which nothing does with one of these locks held.
macro_rules! locks {
    ($($name:ident)*) => { $(#[unsafe(no_mangle)] extern "C" fn $name(_: *mut usize) {})* };
}
locks! {
    wasmtime_sync_lock_free wasmtime_sync_lock_acquire wasmtime_sync_lock_release
    wasmtime_sync_rwlock_read wasmtime_sync_rwlock_read_release
    wasmtime_sync_rwlock_write wasmtime_sync_rwlock_write_release wasmtime_sync_rwlock_free
}

struct CodeMemory;

impl CustomCodeMemory for CodeMemory {
    fn required_alignment(&self) -> usize {
        PAGE as usize
    }

    fn publish_executable(&self, start: *const u8, len: usize) -> wasmtime::Result<()> {
        let start = start.addr() as u64;
        let end = start + len as u64;
        paging::make_executable(start, end)
            .map_err(|_| wasmtime::format_err!("no memory for page tables"))?;
        Ok(())
    }

    fn unpublish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
        // The one artifact of a VM lives as long as the VM.
        Ok(())
    }
}

/// How wasmtime makes the artifact's code executable: by the page tables, never writable.
pub fn code_memory() -> Arc<dyn CustomCodeMemory> {
    Arc::new(CodeMemory)
}

/// Whether the processor has a feature that compiled code may ask for, by wasmtime's name.
pub fn detect_feature(name: &str) -> Option<bool> {
    let one = __cpuid(1);
    let seven = __cpuid_count(7, 0);
    let extended = __cpuid(0x8000_0001);
    let bit = |register: u32, bit: u32| Some(register & (1 << bit) != 0);
    match name {
        "sse3" => bit(one.ecx, 0),
        "ssse3" => bit(one.ecx, 9),
        "fma" => bit(one.ecx, 12),
        "cmpxchg16b" => bit(one.ecx, 13),
        "sse4.1" => bit(one.ecx, 19),
        "sse4.2" => bit(one.ecx, 20),
        "popcnt" => bit(one.ecx, 23),
        "avx" => bit(one.ecx, 28),
        "bmi1" => bit(seven.ebx, 3),
        "avx2" => bit(seven.ebx, 5),
        "bmi2" => bit(seven.ebx, 8),
        "lzcnt" => bit(extended.ecx, 5),
        _ => None,
    }
}
