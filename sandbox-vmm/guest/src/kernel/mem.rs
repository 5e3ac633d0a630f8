//! The memory functions that the compiler calls. Short sizes by overlapping words, long ones by string instructions.

use core::arch::asm;

type Block = core::arch::x86_64::__m128i;

/// Copies `n` bytes, 1 to 32, by overlapping loads before any store, so that overlap does no harm.
#[inline(always)]
unsafe fn copy_short(to: *mut u8, from: *const u8, n: usize) {
    macro_rules! ends {
        ($t:ty) => {{
            let last = n - size_of::<$t>();
            // SAFETY: the caller's ranges hold `n` bytes, and `n` is at least the size of `$t`.
            unsafe {
                let a = from.cast::<$t>().read_unaligned();
                let b = from.add(last).cast::<$t>().read_unaligned();
                to.cast::<$t>().write_unaligned(a);
                to.add(last).cast::<$t>().write_unaligned(b);
            }
        }};
    }
    match n {
        16.. => ends!(Block),
        8.. => ends!(u64),
        4.. => ends!(u32),
        2.. => ends!(u16),
        1 => ends!(u8),
        0 => {}
    }
}

/// See `memcpy(3)`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's ranges hold `n` bytes and do not overlap.
    unsafe {
        if n <= 32 {
            copy_short(to, from, n);
        } else {
            asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") n => _, options(nostack, preserves_flags));
        }
    }
    to
}

/// See `memmove(3)`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's ranges hold `n` bytes; where they overlap with `to` above `from`, bytes go last to first.
    unsafe {
        if n <= 32 {
            copy_short(to, from, n);
        } else if to.addr().wrapping_sub(from.addr()) >= n {
            asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") n => _, options(nostack, preserves_flags));
        } else {
            let words = n / 8;
            let rest = n % 8;
            asm!("std", "rep movsb", "sub rdi, 7", "sub rsi, 7", "mov rcx, {words}", "rep movsq", "cld", words = in(reg) words,
                inout("rdi") to.add(n).wrapping_sub(1) => _, inout("rsi") from.add(n).wrapping_sub(1) => _, inout("rcx") rest => _, options(nostack));
        }
    }
    to
}

/// See `memset(3)`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller's range holds `n` bytes.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("al") byte as u8, inout("rcx") n => _, options(nostack, preserves_flags));
    }
    to
}

/// See `memcmp(3)`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut i = 0;
    // SAFETY: the caller's ranges hold `n` bytes, and `i` stays below.
    unsafe {
        while i + 8 <= n {
            let (x, y) = (
                a.add(i).cast::<u64>().read_unaligned(),
                b.add(i).cast::<u64>().read_unaligned(),
            );
            if x != y {
                return if x.swap_bytes() < y.swap_bytes() {
                    -1
                } else {
                    1
                };
            }
            i += 8;
        }
        while i < n {
            // Volatile, or the compiler makes this loop a call of itself.
            let (x, y) = (a.add(i).read_volatile(), b.add(i).read_volatile());
            if x != y {
                return i32::from(x) - i32::from(y);
            }
            i += 1;
        }
    }
    0
}

/// See `bcmp(3)`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's obligation is ours.
    unsafe { memcmp(a, b, n) }
}

/// See `strlen(3)`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: the caller's text ends with a zero.
    while unsafe { text.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}

// Named by code that was compiled to unwind; the guest never does.
core::arch::global_asm!(
    ".globl _Unwind_Resume",
    ".globl rust_eh_personality",
    "_Unwind_Resume:",
    "rust_eh_personality:",
    "ud2"
);
