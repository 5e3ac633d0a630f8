//! Green threads: each request runs on one, on a stack of its own.
//!
//! The scheduler has the boot stack. It takes records off the ring, runs every thread that is ready once, and when none
//! is, spins a little and then sleeps. A thread gives the processor up where it parks, and where a kick finds it in wasm
//! code after its slice.

use crate::kernel::cell::Local;
use crate::kernel::stack::Stack;
use crate::kernel::{arena, boot, heap, rings, time};
use crate::settings;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use sandbox_abi::boot::field;
use sandbox_abi::config::Reuse;

/// A thread. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadId {
    slot: u32,
    generation: u32,
}

/// There are as many threads as there may be, or no memory for another stack.
#[derive(Debug)]
pub struct Busy;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Running,
    Parked,
    Done,
}

struct Thread {
    generation: u32,
    state: State,
    /// Unparked while it ran: the next park returns at once.
    token: bool,
    rsp: u64,
    stack: Option<Stack>,
    main: Option<Box<dyn FnOnce()>>,
    /// The slot whose thread it is.
    slot: Option<usize>,
    deadline: Option<u64>,
    /// wasmtime's thread-local state.
    tls: [*mut u8; 2],
    account: Account,
}

/// What a thread has used, and what it may.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Nanoseconds before the current turn.
    pub used_ns: u64,
    /// Start of the current turn, as [`time::processor_ns`] has it.
    pub turn_ns: u64,
    /// Most nanoseconds.
    pub limit_ns: Option<u64>,
    /// Why the kernel trapped it, one of `sandbox_abi::message::outcome`.
    pub outcome: Option<u32>,
}

struct Scheduler {
    threads: Vec<Thread>,
    free: Vec<u32>,
    ready: VecDeque<u32>,
    current: Option<u32>,
    rsp: u64,
    tls: [*mut u8; 2],
}

static SCHEDULER: Local<Scheduler> = Local::new(Scheduler {
    threads: Vec::new(),
    free: Vec::new(),
    ready: VecDeque::new(),
    current: None,
    rsp: 0,
    tls: [core::ptr::null_mut(); 2],
});

/// How long an idle processor looks for work before it sleeps: to sleep and to be woken takes about as long.
const SPIN_NS: u64 = 150_000;
/// It does so only where it had to wait for less than that of late: otherwise it would seldom find any.
const SPARSE_NS: u64 = 4 * SPIN_NS;

/// Makes a thread that is ready to run `main`. What the thread of a slot allocates comes from the slot's arena.
pub fn spawn(slot: Option<usize>, main: Box<dyn FnOnce()>) -> Result<ThreadId, Busy> {
    let stack = Stack::take().ok_or(Busy)?;
    SCHEDULER.with(|s| {
        // `switch` pops six registers and returns to `begin`; the stack is then as a call leaves it.
        let rsp = stack.top() - 64;
        let frame = [0, 0, 0, 0, 0, 0, begin as *const () as u64, 0];
        // SAFETY: the top of a stack is mapped and nobody uses it.
        unsafe { core::ptr::copy_nonoverlapping(frame.as_ptr(), rsp as *mut u64, frame.len()) };
        let index = s.free.pop().unwrap_or(s.threads.len() as u32);
        let generation = s
            .threads
            .get(index as usize)
            .map_or(0, |t| t.generation.wrapping_add(1));
        let thread = Thread {
            generation,
            state: State::Ready,
            token: false,
            rsp,
            stack: Some(stack),
            main: Some(main),
            slot,
            deadline: None,
            tls: [core::ptr::null_mut(); 2],
            account: Account::default(),
        };
        match s.threads.get_mut(index as usize) {
            Some(old) => *old = thread,
            None => s.threads.push(thread),
        }
        s.ready.push_back(index);
        Ok(ThreadId {
            slot: index,
            generation,
        })
    })
}

impl Scheduler {
    fn running(&mut self) -> Option<&mut Thread> {
        self.threads.get_mut(self.current? as usize)
    }
}

/// The running thread. Only to be called on one.
pub fn current() -> ThreadId {
    SCHEDULER.with(|s| {
        let slot = s.current.expect("only threads ask who they are");
        ThreadId {
            slot,
            generation: s.threads[slot as usize].generation,
        }
    })
}

/// The slot whose thread is running.
pub fn slot() -> Option<usize> {
    SCHEDULER.with(|s| s.running()?.slot)
}

/// Looks at or changes the running thread's account; the scheduler's own if there is none.
pub fn account<R>(f: impl FnOnce(&mut Account) -> R) -> R {
    SCHEDULER.with(|s| match s.running() {
        Some(thread) => f(&mut thread.account),
        None => f(&mut Account::default()),
    })
}

/// wasmtime's thread-local state of the running context.
pub fn tls(slot: usize) -> *mut u8 {
    SCHEDULER.with(|s| {
        s.running()
            .map(|t| t.tls)
            .unwrap_or_else(|| s.tls)
            .get(slot)
            .copied()
            .unwrap_or(core::ptr::null_mut())
    })
}

/// Sets it.
pub fn set_tls(slot: usize, value: *mut u8) {
    SCHEDULER.with(|s| {
        let tls = match s.current {
            Some(n) => &mut s.threads[n as usize].tls,
            None => &mut s.tls,
        };
        if let Some(at) = tls.get_mut(slot) {
            *at = value;
        }
    });
}

/// Gives the processor up until [`unpark`], or until the monotonic clock shows `deadline`. May return early.
pub fn park(deadline: Option<u64>) {
    let parked = SCHEDULER.with(|s| {
        let Some(thread) = s.running() else {
            return false;
        };
        if core::mem::take(&mut thread.token) {
            return false;
        }
        thread.state = State::Parked;
        thread.deadline = deadline;
        true
    });
    if parked {
        leave();
    }
}

/// Lets a parked thread go on; one that runs will not park next time. A thread that is gone is left alone.
pub fn unpark(id: ThreadId) {
    SCHEDULER.with(|s| {
        let Some(thread) = s
            .threads
            .get_mut(id.slot as usize)
            .filter(|t| t.generation == id.generation)
        else {
            return;
        };
        match thread.state {
            State::Parked => {
                thread.state = State::Ready;
                thread.deadline = None;
                s.ready.push_back(id.slot);
            }
            State::Running | State::Ready => thread.token = true,
            State::Done => {}
        }
    });
}

/// Ends the wasm of a thread as soon as it runs: it is over its limit from now on, for this reason (one of
/// `sandbox_abi::message::outcome`). The thread is not unparked.
pub fn end(id: ThreadId, outcome: u32) {
    SCHEDULER.with(|s| {
        if let Some(thread) = s
            .threads
            .get_mut(id.slot as usize)
            .filter(|t| t.generation == id.generation)
        {
            thread.account.limit_ns = Some(0);
            thread.account.outcome = Some(outcome);
        }
    });
}

/// Lets the others go first.
pub fn yield_now() {
    let ready = SCHEDULER.with(|s| {
        let Some(slot) = s.current else { return false };
        s.threads[slot as usize].state = State::Ready;
        s.ready.push_back(slot);
        true
    });
    if ready {
        leave();
    }
}

/// Saves the callee-saved registers and the stack pointer to `*save`, and goes on where `*load` was saved.
#[unsafe(naked)]
unsafe extern "C" fn switch(save: *mut u64, load: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// From a thread to the scheduler.
fn leave() {
    let (save, load) = SCHEDULER.with(|s| {
        let load = s.rsp;
        let thread = s.running().expect("only threads leave");
        thread.account.used_ns += time::processor_ns_since(thread.account.turn_ns);
        (&raw mut thread.rsp, load)
    });
    // SAFETY: the scheduler saved `load` when it entered this thread and waits there. `save` stays valid until `switch`
    // has written it: nothing else runs in between.
    unsafe { switch(save, load) }
}

/// From the scheduler to a thread, and back when it leaves.
fn enter(slot: u32) {
    let (save, load, heap) = SCHEDULER.with(|s| {
        s.current = Some(slot);
        let thread = &mut s.threads[slot as usize];
        thread.state = State::Running;
        thread.account.turn_ns = time::processor_ns();
        (
            thread.rsp,
            &raw mut s.rsp,
            thread.slot.map_or(0, arena::base),
        )
    });
    boot::set(field::SLICE, boot::get(field::SLICE).wrapping_add(1));
    heap::switch(heap);
    // SAFETY: `rsp` of a thread that is ready is what `switch` saved or `spawn` prepared; the scheduler's lives in a static.
    unsafe { switch(load, save) }
    heap::switch(0);
    SCHEDULER.with(|s| {
        s.current = None;
        let thread = &mut s.threads[slot as usize];
        if thread.state == State::Done {
            if let Some(stack) = thread.stack.take() {
                stack.give();
            }
            s.free.push(slot);
        }
    });
}

/// The first function of every thread.
extern "C" fn begin() -> ! {
    let main = SCHEDULER.with(|s| s.running().and_then(|t| t.main.take()));
    if let Some(main) = main {
        main();
    }
    SCHEDULER.with(|s| {
        if let Some(thread) = s.running() {
            thread.state = State::Done;
        }
    });
    leave();
    unreachable!("a thread that is done is never entered again")
}

/// Readies the threads whose time has come; says how long it is until the next.
fn timers() -> Option<u64> {
    let now = time::monotonic_ns();
    SCHEDULER.with(|s| {
        let mut next: Option<u64> = None;
        for (slot, thread) in s.threads.iter_mut().enumerate() {
            let Some(deadline) = thread.deadline.filter(|_| thread.state == State::Parked) else {
                continue;
            };
            if deadline <= now {
                thread.state = State::Ready;
                thread.deadline = None;
                s.ready.push_back(slot as u32);
            } else {
                next = Some(next.map_or(deadline, |n| n.min(deadline)));
            }
        }
        next.map(|n| n - now)
    })
}

/// The scheduler: never returns. `deliver` gets every record from the host; `round` is called before each round of
/// turns, and says whether there will be more to do after it.
pub fn run(
    mut deliver: impl FnMut(sandbox_abi::message::Header, Cow<'_, [u8]>),
    mut round: impl FnMut() -> bool,
) -> ! {
    loop {
        rings::drain(&mut deliver);
        rings::retry_senders();
        let more = round();
        let next = timers();
        let turns = SCHEDULER.with(|s| s.ready.len());
        for _ in 0..turns {
            if let Some(slot) = SCHEDULER.with(|s| s.ready.pop_front()) {
                enter(slot);
            }
            rings::ring(false);
        }
        // Answers that follow share the doorbell.
        rings::ring(!more);
        if turns == 0 {
            idle(next);
        }
    }
}

/// A moving average of how long an idle processor waits for a record, in nanoseconds; long waits count as not so long.
static WAIT_NS: AtomicU64 = AtomicU64::new(0);

fn idle(next: Option<u64>) {
    // A VM that is put back after its requests is waited for; the others may have their next request at any moment.
    let spins = !matches!(settings::current().reuse, Reuse::Vm { .. })
        && WAIT_NS.load(Ordering::Relaxed) < SPARSE_NS;
    let spin = if spins { SPIN_NS } else { 0 };
    let began = time::monotonic_ns();
    let until = began + spin.min(next.unwrap_or(u64::MAX));
    while time::monotonic_ns() < until && !rings::ready() {
        core::hint::spin_loop();
    }
    if !rings::ready() {
        let ns = next.map_or(u64::MAX, |n| n.saturating_sub(spin));
        if ns > 0 {
            rings::sleep(ns);
        }
        if !rings::ready() {
            return;
        }
    }
    let waited = (time::monotonic_ns() - began).min(4 * SPARSE_NS);
    WAIT_NS.store(
        (3 * WAIT_NS.load(Ordering::Relaxed) + waited) / 4,
        Ordering::Relaxed,
    );
}
