//! The guest runtime: wasmtime without a kernel under it, at CPL3.
//!
//! - [`kernel`]: what an operating system would do: memory, faults, threads, time, rings.
//! - [`platform`]: what wasmtime asks of its platform.
//! - [`runtime`]: the engine, the component, one request.
//! - [`settings`]: what the deployment says.
//! - [`slots`]: where requests run.
//! - [`streams`]: the exchanges on the rings.
//! - [`wasi`], [`http`]: the host functions.
#![no_std]
#![no_main]

extern crate alloc;

pub mod artifact;
pub mod http;
pub mod kernel;
pub mod link;
pub mod platform;
pub mod runtime;
pub mod settings;
pub mod slots;
pub mod streams;
pub mod wasi;

use alloc::boxed::Box;
use kernel::{boot, port, sched};
use sandbox_abi::boot::field;
use sandbox_abi::config::Reuse;
use sandbox_abi::message::{Header, Kind};

core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym main);

extern "C" fn main() -> ! {
    if boot::get(field::VERSION) != sandbox_abi::VERSION || !kernel::trap::in_ring_3() {
        port::fatal(sandbox_abi::port::fatal::VERSION);
    }
    kernel::init();
    if sched::spawn(None, Box::new(load)).is_err() {
        kernel::fatal_memory();
    }
    sched::run(streams::deliver, slots::dispatch)
}

/// Loads the component and makes the first slot: the main function of the first thread. A VM that is made from a template
/// begins in the middle; one that is put back after its requests begins later each time.
fn load() {
    read_settings();
    let bytes = artifact::bytes();
    match artifact::Code::find(bytes).map(kernel::preempt::set_code) {
        Some(Ok(())) => {}
        Some(Err(_)) => kernel::fatal_memory(),
        None => refuse(format_args!("the artifact has no code")),
    }
    match runtime::Runtime::load(bytes.into()) {
        Ok(runtime) => runtime::install(runtime),
        Err(e) => refuse(format_args!("{e}")),
    }
    if !runtime::waits_for_settings() {
        first_slot();
    }
    kernel::leave_to_others();
    read_settings();
    slots::copy_expected();
    if runtime::settle() {
        first_slot();
    }
    if let Reuse::Vm { requests } = settings::current().reuse {
        if requests == 1 {
            slots::own();
        }
        kernel::leave_to_others();
    }
    kernel::rings::open();
    kernel::rings::try_send(Header::new(Kind::Ready, 0, 0), &[]);
}

/// The first request is to find an instance. Without memory for one it is told so.
fn first_slot() {
    let _ = slots::add();
    while slots::at_work() {
        sched::yield_now();
    }
}

fn read_settings() {
    if let Err(e) = settings::read() {
        refuse(format_args!("the configuration: {e}"));
    }
}

fn refuse(why: core::fmt::Arguments<'_>) -> ! {
    kernel::debug::line(why);
    port::fatal(sandbox_abi::port::fatal::ARTIFACT)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    debug!("{info}");
    port::fatal(sandbox_abi::port::fatal::PANIC)
}
