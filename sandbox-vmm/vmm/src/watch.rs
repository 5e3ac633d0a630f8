//! One thread that sees to it that no request holds a processor for longer than a slice.
//!
//! Every [`TICK`] it compares each running guest's slice counter with the last one. A counter that stands still is
//! kicked; one that stands still for `PATIENCE` though it is kicked belongs to a guest that is lost. A hostile guest
//! can count as it likes: it then keeps the processor time of its own tenant, and the router's deadlines end its requests.

use crate::vm::Vm;
use sandbox_abi::boot::field;
use sandbox_abi::layout;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How often guests are looked at; half a slice.
pub const TICK: Duration = Duration::from_millis(5);
/// Ticks that a request may run before it is kicked.
const SLICE_TICKS: u32 = 2;
/// Ticks until a guest that reacts to no kick is given up: 10 s.
const PATIENCE: u32 = 2000;

#[derive(Debug)]
struct Seen {
    vm: Weak<Vm>,
    slice: u64,
    ticks: u32,
}

/// The watch of a process. Its thread ends when the watch is dropped.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Arc<Mutex<HashMap<u64, Seen>>>,
}

impl Watch {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Watch> {
        let watch = Watch::default();
        let seen = Arc::downgrade(&watch.seen);
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                while let Some(seen) = seen.upgrade() {
                    seen.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .retain(|_, s| s.look());
                    drop(seen);
                    std::thread::sleep(TICK);
                }
            })?;
        Ok(watch)
    }

    /// Watches a VM, under a number of the caller's, until it is dropped.
    pub fn add(&self, number: u64, vm: &Arc<Vm>) {
        let seen = Seen {
            vm: Arc::downgrade(vm),
            slice: 0,
            ticks: 0,
        };
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, seen);
    }
}

impl Seen {
    /// One look; `false` when the VM is gone.
    fn look(&mut self) -> bool {
        let Some(vm) = self.vm.upgrade() else {
            return false;
        };
        if vm.shared.stop.load(Ordering::SeqCst) {
            vm.kick();
            return true;
        }
        let slice = vm.memory.read_u64(layout::BOOT + field::SLICE).unwrap_or(0);
        if slice != self.slice || vm.shared.asleep.load(Ordering::Relaxed) {
            self.slice = slice;
            self.ticks = 0;
            return true;
        }
        self.ticks += 1;
        if self.ticks >= PATIENCE {
            vm.shared.stuck.store(true, Ordering::SeqCst);
        }
        if self.ticks >= SLICE_TICKS {
            vm.shared.preempt.store(true, Ordering::SeqCst);
            vm.kick();
        }
        true
    }
}
