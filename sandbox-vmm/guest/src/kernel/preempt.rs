//! Kicks: how the processor is taken from a request whose slice is over.
//!
//! A kick that finds wasm code running continues in [`preempt_entry`], as if that code had called it. One that finds the
//! runtime at work (in a `memory.fill`, for example) must not stop it there: it continues in [`defer_entry`], which makes
//! all wasm code not executable, and lets the runtime go on. So the first instruction of wasm code after that faults, and
//! the fault is what the kick was to be ([`is_deferred`]).
//!
//! Wasm code is not ended everywhere: while the host calls it, the stub that does so first notes where a trap is to
//! unwind to. A kick there has no such place yet, and only gives others their turn; whoever is over the limit does not
//! get this far again, as wasm is not called then (`runtime`).

use crate::artifact::Code;
use crate::kernel::cell::Local;
use crate::kernel::{account, boot, paging, rings, sched, trap};
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::ops::Range;
use sandbox_abi::boot::field;
use sandbox_abi::layout::{BOOT, LARGE_PAGE};

#[repr(C, align(4096))]
struct DeferStack([u8; 4096]);

static mut DEFER_STACK: DeferStack = DeferStack([0; 4096]);

/// Entries of page tables of large pages, side by side: the first one, and how many.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entries {
    first: *mut u64,
    count: u64,
}

/// Most tables that the entries of an artifact's code are in: each covers 1 GiB.
const TABLES: usize = 3;

/// The entries that the code lies below. Set once, before the first kick; [`defer_entry`] reads it.
#[unsafe(no_mangle)]
static mut CLOISTER_CODE: [Entries; TABLES] = NO_CODE;

const NO_CODE: [Entries; TABLES] = [Entries {
    first: core::ptr::null_mut(),
    count: 0,
}; TABLES];

static CODE: Local<Code> = Local::new(Code {
    text: 0..0,
    trapping: 0,
    entries: Vec::new(),
});

/// Wasm code may run from now on, and be kicked.
pub fn set_code(code: Code) -> Result<(), paging::NoTables> {
    let Range { start, end } = code.text;
    let mut tables = NO_CODE;
    let mut at = start & !(LARGE_PAGE - 1);
    for entries in &mut tables {
        let stop = ((at | (512 * LARGE_PAGE - 1)) + 1).min(end).max(at);
        entries.first = paging::large_entry(at)?;
        entries.count = (stop - at).div_ceil(LARGE_PAGE);
        at = stop;
    }
    // SAFETY: nobody reads it before there is a stack for `defer_entry`, below.
    unsafe { (&raw mut CLOISTER_CODE).write(tables) };
    trap::set_blamed(code.trapping);
    CODE.with(|c| *c = code);
    boot::set(field::WASM_START, start);
    boot::set(field::WASM_END, end);
    boot::set(field::PREEMPT_ENTRY, preempt_entry as *const () as u64);
    boot::set(field::DEFER_ENTRY, defer_entry as *const () as u64);
    let stack = (&raw const DEFER_STACK).addr() as u64;
    boot::set(field::DEFER_STACK, stack + size_of::<DeferStack>() as u64);
    Ok(())
}

/// Whether an instruction at this address is wasm code.
pub fn is_wasm(rip: u64) -> bool {
    CODE.with(|c| c.text.contains(&rip))
}

/// Ring 3, on the stack of the wasm code that was interrupted: saves everything, asks [`preempted`], goes on.
/// Wasm code keeps nothing below its stack pointer.
#[unsafe(naked)]
unsafe extern "C" fn preempt_entry() {
    naked_asm!(
        "push qword ptr [{rip}]",
        "pushfq",
        trap::push_all!(),
        "mov rbx, rsp",
        "sub rsp, 512",
        "and rsp, -64",
        "fxsave64 [rsp]",
        "cld",
        "mov rdi, rbp",
        // Above the fifteen registers and the flags.
        "mov rsi, [rbx + 128]",
        "call {preempted}",
        "fxrstor64 [rsp]",
        "mov rsp, rbx",
        trap::pop_all!(),
        "popfq",
        "ret",
        rip = const BOOT + field::PREEMPT_RIP,
        preempted = sym preempted,
    )
}

/// Ring 3, on a stack of its own, after a kick that found the runtime at work, wherever: touches nothing but that stack,
/// the page tables and the boot page, and goes on where it was. Left by `iretq`, at once and whole, so that another kick
/// finds either this stack or the other.
#[unsafe(naked)]
unsafe extern "C" fn defer_entry() {
    naked_asm!(
        // ss, rsp, flags, cs, rip, as `iretq` takes them. The selectors are the ones in use.
        "push rax",
        "mov rax, ss",
        "xchg rax, [rsp]",
        "push qword ptr [{rsp}]",
        "pushfq",
        "push rax",
        "mov rax, cs",
        "xchg rax, [rsp]",
        "push qword ptr [{rip}]",
        "push rax",
        "push rcx",
        "push rdx",
        ".set table, 0",
        ".rept {tables}",
        "mov rdx, [CLOISTER_CODE + table]",
        "mov rcx, [CLOISTER_CODE + table + 8]",
        "jrcxz 3f",
        "2:",
        "bts qword ptr [rdx], 63",
        "add rdx, 8",
        "dec rcx",
        "jnz 2b",
        "3:",
        ".set table, table + 16",
        ".endr",
        "mov eax, 1",
        "mov [{deferred}], rax",
        "out {flush}, al",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "iretq",
        rsp = const BOOT + field::DEFER_RSP,
        rip = const BOOT + field::DEFER_RIP,
        deferred = const BOOT + field::DEFERRED,
        flush = const sandbox_abi::port::FLUSH,
        tables = const TABLES,
    )
}

/// Whether a fault at wasm code was a kick's that had been deferred. Then the code may run again; the interrupted
/// instruction is to go on in the address that is returned.
pub fn is_deferred(rip: u64) -> Option<u64> {
    if boot::get(field::DEFERRED) == 0 {
        return None;
    }
    allow();
    boot::set(field::PREEMPT_RIP, rip);
    Some(preempt_entry as *const () as u64)
}

/// Forgets a kick that has been deferred, and asks for no other one soon. For memory that others are to begin with.
pub fn forget() {
    boot::set(field::SLICE, boot::get(field::SLICE).wrapping_add(1));
    if boot::get(field::DEFERRED) != 0 {
        allow();
    }
}

/// Lets wasm code run again, after a kick was deferred.
fn allow() {
    boot::set(field::DEFERRED, 0);
    // SAFETY: `set_code` has written it, or no kick would have been deferred, and nobody writes it again.
    for Entries { first, count } in unsafe { (&raw const CLOISTER_CODE).read() } {
        for n in 0..count as usize {
            // SAFETY: an entry of a page table, as `set_code` found it; allowing more needs no flush.
            unsafe {
                let entry = first.add(n);
                entry.write_volatile(entry.read_volatile() & !paging::NO_EXECUTE);
            }
        }
    }
}

/// A kick in wasm code at `rip`, whose frame pointer is `frame`: the end of it if it is over its time, else the others'
/// turn.
extern "C" fn preempted(frame: u64, rip: u64) {
    boot::set(field::SLICE, boot::get(field::SLICE).wrapping_add(1));
    if account::over() && !CODE.with(|c| c.is_entry(rip)) {
        trap::stop(frame);
    }
    rings::ring(true);
    sched::yield_now();
}
