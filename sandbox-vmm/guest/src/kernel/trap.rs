//! Processor exceptions.
//!
//! Ring 0 holds nothing but one stub for each exception: it notes what happened and returns to [`entry`] in ring 3, on
//! a stack of its own. There a page fault in a memory or stack is mended and the interrupted code goes on as if nothing
//! had been; what wasm code did wrong goes to wasmtime, which unwinds to where wasm was called; anything else is the end
//! of the VM. There is one exception at a time: the handler itself touches only memory that is mapped.

use crate::kernel::{boot, cell::Local, frames, port, preempt, sched, space, stack};
use core::arch::{asm, global_asm, naked_asm};
use sandbox_abi::boot::field;
use sandbox_abi::layout::{IDT, PAGE};
use sandbox_abi::message::outcome;

const PAGE_FAULT: u64 = 14;
/// In a page fault's error: an instruction was to be fetched.
const FETCH: u64 = 16;
const VECTORS: u64 = 32;
/// From one stub to the next.
const STUB: u64 = 128;

/// What a stub notes. Only stubs write it, and only [`entry`] reads it.
#[repr(C)]
struct Note {
    rip: u64,
    rsp: u64,
    flags: u64,
    address: u64,
    error: u64,
    vector: u64,
}

#[unsafe(no_mangle)]
static mut CLOISTER_NOTE: Note = Note {
    rip: 0,
    rsp: 0,
    flags: 0,
    address: 0,
    error: 0,
    vector: 0,
};

#[repr(C, align(4096))]
struct TrapStack([u8; 64 << 10]);

#[unsafe(no_mangle)]
static mut CLOISTER_TRAP_STACK: TrapStack = TrapStack([0; 64 << 10]);

// A stub runs in ring 0, emulated an instruction at a time where KVM is nested without hardware: it is short and plain.
// On its stack: [error code,] rip, cs, flags, rsp, ss.
global_asm!(
    ".balign 4096",
    ".globl cloister_stubs",
    "cloister_stubs:",
    ".set vector, 0",
    ".rept 32",
    ".balign 128",
    "  push rax",
    ".if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21)",
    "  mov rax, [rsp + 8]",
    "  mov [CLOISTER_NOTE + 32], rax",
    "  .set off, 16",
    ".else",
    "  .set off, 8",
    ".endif",
    "  mov rax, [rsp + off]",
    "  mov [CLOISTER_NOTE], rax",
    "  mov rax, [rsp + off + 24]",
    "  mov [CLOISTER_NOTE + 8], rax",
    "  mov rax, [rsp + off + 16]",
    "  mov [CLOISTER_NOTE + 16], rax",
    "  mov rax, cr2",
    "  mov [CLOISTER_NOTE + 24], rax",
    "  mov qword ptr [CLOISTER_NOTE + 40], vector",
    "  mov qword ptr [rsp + off], offset cloister_trap_entry",
    "  mov qword ptr [rsp + off + 24], offset CLOISTER_TRAP_STACK + 65536",
    "  pop rax",
    ".if off == 16",
    "  add rsp, 8",
    ".endif",
    "  iretq",
    ".set vector, vector + 1",
    ".endr",
);

unsafe extern "C" {
    static cloister_stubs: u8;
}

/// All general registers, as [`push_all`] pushes them.
#[repr(C)]
struct Registers {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rcx: u64,
    rax: u64,
}

/// Instructions that push all general registers.
macro_rules! push_all {
    () => {
        "push rax\n push rcx\n push rdx\n push rbx\n push rbp\n push rsi\n push rdi\n push r8\n push r9\n push r10\n push r11\n push r12\n push r13\n push r14\n push r15"
    };
}
/// Instructions that pop them.
macro_rules! pop_all {
    () => {
        "pop r15\n pop r14\n pop r13\n pop r12\n pop r11\n pop r10\n pop r9\n pop r8\n pop rdi\n pop rsi\n pop rbp\n pop rbx\n pop rdx\n pop rcx\n pop rax"
    };
}

pub(super) use {pop_all, push_all};

/// Ring 3, on the trap stack, all registers as they were: saves them, asks [`handle`], and goes on where it stopped.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn cloister_trap_entry() {
    naked_asm!(
        push_all!(),
        "mov rbx, rsp",
        "sub rsp, 512",
        "and rsp, -64",
        "fxsave64 [rsp]",
        "cld",
        "mov rdi, rbx",
        "call {handle}",
        "fxrstor64 [rsp]",
        "mov rsp, rbx",
        // ss, rsp, flags, cs, rip, all but the registers that were pushed: built below them, then taken by iretq.
        // The selectors are the ones in use, whatever the host shows a guest in ring 3.
        "mov rax, ss",
        "mov [rsp - 8], rax",
        "mov rax, [CLOISTER_NOTE + 8]",
        "mov [rsp - 16], rax",
        "mov rax, [CLOISTER_NOTE + 16]",
        "mov [rsp - 24], rax",
        "mov rax, cs",
        "mov [rsp - 32], rax",
        "mov rax, [CLOISTER_NOTE]",
        "mov [rsp - 40], rax",
        pop_all!(),
        "sub rsp, 160",
        "iretq",
        handle = sym handle,
    )
}

/// wasmtime's handler: see `wasmtime_trap_handler_t`.
type Handler = extern "C" fn(usize, usize, bool, usize);

struct Wasm {
    handler: Option<Handler>,
    /// An instruction that wasmtime knows may trap; to be blamed for a trap of the kernel's.
    blamed: u64,
}

static WASM: Local<Wasm> = Local::new(Wasm {
    handler: None,
    blamed: 0,
});

/// Fills the interrupt descriptor table; from here on faults are handled.
pub fn init() {
    let stubs = (&raw const cloister_stubs).addr() as u64;
    for vector in 0..VECTORS {
        let stub = stubs + vector * STUB;
        let low = (stub & 0xffff) | 0x08 << 16 | 0x8e00 << 32 | (stub >> 16 & 0xffff) << 48;
        let gate = (IDT + vector * 16) as *mut u64;
        // SAFETY: the table is a page of its own, mapped writable, and no exception can occur in between that matters.
        unsafe {
            gate.write_volatile(low);
            gate.add(1).write_volatile(stub >> 32);
        }
    }
}

/// Remembers wasmtime's handler.
pub fn set_handler(handler: Handler) {
    WASM.with(|w| w.handler = Some(handler));
}

/// Sets the instruction that is blamed for traps of the kernel's: one that wasmtime knows may trap.
pub fn set_blamed(blamed: u64) {
    WASM.with(|w| w.blamed = blamed);
}

/// An exception. Returns if the interrupted code may go on.
extern "C" fn handle(registers: &Registers) {
    // SAFETY: the stub wrote the note before it came here, and no other exception has happened since.
    let note = unsafe { (&raw const CLOISTER_NOTE).read_volatile() };
    let wasm = preempt::is_wasm(note.rip);
    let mut lack = false;
    if note.vector == PAGE_FAULT {
        if wasm
            && note.error & FETCH != 0
            && let Some(entry) = preempt::is_deferred(note.rip)
        {
            // SAFETY: only this function and the stubs use the note; where it says is where the entry point goes on.
            unsafe { (&raw mut CLOISTER_NOTE.rip).write_volatile(entry) };
            return;
        }
        let write = note.error & 2 != 0;
        if stack::fault(note.address) {
            return;
        }
        match space::fault(note.address, write) {
            space::Fault::Handled => return,
            space::Fault::NoMemory => lack = true,
            space::Fault::Bad => {}
        }
        if spurious(note.address, note.error) {
            return;
        }
    }
    let handler = WASM.with(|w| w.handler);
    if let (Some(handler), true) = (handler, wasm) {
        if lack {
            sched::account(|a| a.outcome = Some(outcome::MEMORY));
        }
        boot::set(field::TRAPS, boot::get(field::TRAPS).wrapping_add(1));
        let fault = note.vector == PAGE_FAULT;
        handler(
            note.rip as usize,
            registers.rbp as usize,
            fault,
            note.address as usize,
        );
    }
    crate::debug!(
        "exception {} at {:#x}, address {:#x}, error {:#x}, stack {:#x}, {} frames left",
        note.vector,
        note.rip,
        note.address,
        note.error,
        note.rsp,
        frames::left()
    );
    port::fatal(sandbox_abi::port::fatal::EXCEPTION)
}

/// Whether the tables allow by now what the processor refused: it had an older entry in mind.
fn spurious(address: u64, error: u64) -> bool {
    let entry = crate::kernel::paging::lookup(address & !(PAGE - 1));
    let present = entry & crate::kernel::paging::PRESENT == crate::kernel::paging::PRESENT;
    let write = error & 2 == 0 || entry & crate::kernel::paging::WRITE != 0;
    let execute = error & FETCH == 0 || entry & crate::kernel::paging::NO_EXECUTE == 0;
    present && write && execute
}

/// Ends the wasm code with this frame pointer: unwinds to where it was called. What it was doing is dropped with its
/// instance. Returns if there is nothing that a trap could be blamed on.
pub fn stop(frame: u64) {
    let (handler, blamed) = WASM.with(|w| (w.handler, w.blamed));
    if let Some(handler) = handler.filter(|_| blamed != 0) {
        boot::set(field::TRAPS, boot::get(field::TRAPS).wrapping_add(1));
        handler(blamed as usize, frame as usize, false, 0);
    }
}

/// Whether this processor runs the guest where it should be: used once at boot, as a check of the VMM.
pub fn in_ring_3() -> bool {
    let cs: u64;
    // SAFETY: reads a selector.
    unsafe { asm!("mov {}, cs", out(reg) cs, options(nomem, nostack, preserves_flags)) };
    cs & 3 == 3
}
