//! The loop of the virtual processor: enter the guest, see why it came back, answer.

use crate::hot::Lesson;
use crate::image::BootImage;
use crate::reset::Origin;
use crate::template;
use crate::vm::{ResetDescriptors, Shared, VmEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use sandbox_abi::boot::field;
use sandbox_abi::layout::{self, PAGE};
use sandbox_abi::port;
use sandbox_kvm::{Exit, Machine, Vcpu};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most bytes of RAM that the guest is given at once: it takes a few milliseconds, in which the VM cannot be ended.
const MOST_POPULATED: u64 = 32 << 20;
/// Lines for the operator that one VM may write in its life.
const DEBUG_LINES: u32 = 256;

pub(crate) struct Processor {
    // Dropped before the machine that it belongs to.
    pub(crate) vcpu: Vcpu,
    pub(crate) machine: Machine,
    pub(crate) wake: OwnedFd,
    pub(crate) shared: Arc<Shared>,
    /// The guest is not to be entered before the router wakes it.
    pub(crate) parked: bool,
    /// The guest has not slept: it has not been told of any request.
    pub(crate) untouched: bool,
    pub(crate) debug_lines: u32,
    /// What the guest wrote last for the operator: why it ends, where it ends after it.
    pub(crate) last_line: String,
    /// Bytes of RAM that the guest has.
    pub(crate) exposed: u64,
    /// Bytes of RAM that it may have.
    pub(crate) limit: u64,
    /// Where its memory goes when it may be kept as a template.
    pub(crate) save: Option<(OwnedFd, Arc<BootImage>)>,
    /// How it is put back.
    pub(crate) reset: Option<(ResetDescriptors, Origin)>,
    /// Who is told what the first request writes.
    pub(crate) learn: Option<Lesson>,
}

type Step = ControlFlow<VmEvent>;

fn lost(reason: impl std::fmt::Display) -> Step {
    ControlFlow::Break(VmEvent::Lost(reason.to_string()))
}

/// Takes what an eventfd has counted. One that is no eventfd, or blocks, is the daemon's fault alone.
fn take(event: &OwnedFd) {
    let _ = rustix::io::read(event, &mut [0_u8; 8]);
}

/// Nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(0))
}

impl Processor {
    /// Runs the guest until it ends; says how.
    pub(crate) fn run(&mut self, events: &impl Fn(VmEvent)) -> VmEvent {
        if self.parked
            && let ControlFlow::Break(event) = self.wait(None)
        {
            return event;
        }
        loop {
            if self.shared.stop.load(Ordering::SeqCst) {
                return VmEvent::Stopped;
            }
            if self.shared.stuck.load(Ordering::SeqCst) {
                return VmEvent::Lost("the guest does not answer".into());
            }
            let exit = self.vcpu.run();
            self.shared.exits.fetch_add(1, Ordering::Relaxed);
            let step = match exit {
                Ok(Exit::Port(port)) => self.port(port, events),
                Ok(Exit::Interrupted) => self.interrupted(),
                Ok(Exit::Lost(reason)) => lost(reason),
                Err(e) => lost(e),
            };
            if let ControlFlow::Break(event) = step {
                return event;
            }
        }
    }

    fn port(&mut self, port: u16, events: &impl Fn(VmEvent)) -> Step {
        match u8::try_from(port) {
            Ok(port::SLEEP) => match self.field(field::ARG0) {
                u64::MAX => self.wait(None),
                ns => self.wait(Some(ns)),
            },
            Ok(port::CLOCK) => self.set_clock(),
            Ok(port::TEMPLATE) => self.template(events),
            Ok(port::GROW) => self.grow(),
            Ok(port::FLUSH) => match self
                .vcpu
                .switch_page_tables([layout::PML4, layout::PML4_ALT])
            {
                Ok(()) => Step::Continue(()),
                Err(e) => lost(e),
            },
            Ok(port::POPULATE) => {
                self.populate();
                Step::Continue(())
            }
            Ok(port::DEBUG) => {
                if self.debug_lines < DEBUG_LINES {
                    self.debug_lines += 1;
                    self.last_line = self.debug_line();
                    events(VmEvent::Debug(self.last_line.clone()));
                }
                Step::Continue(())
            }
            Ok(port::FATAL) => lost(match self.field(field::ARG0) {
                port::fatal::PANIC => "the guest's runtime panicked".into(),
                port::fatal::EXCEPTION => "a processor exception in the guest's runtime".into(),
                port::fatal::VERSION => "host and guest are of different versions".into(),
                port::fatal::ARTIFACT => {
                    format!("the guest refuses the artifact: {}", self.last_line)
                }
                port::fatal::MEMORY => "the guest's runtime is out of memory".into(),
                port::fatal::RING => {
                    "the guest says that the host broke the ring's contract".into()
                }
                other => format!("the guest ended with code {other}"),
            }),
            _ => lost(format!(
                "the guest wrote to port {port:#x}, which does not exist"
            )),
        }
    }

    /// A field of the boot page, as the guest left it.
    fn field(&self, offset: u64) -> u64 {
        self.machine
            .memory()
            .read_u64(layout::BOOT + offset)
            .unwrap_or(0)
    }

    fn set_clock(&self) -> Step {
        match self
            .machine
            .memory()
            .write_u64(layout::BOOT + field::WALL_NS, wall_ns())
        {
            Ok(()) => Step::Continue(()),
            Err(e) => lost(e),
        }
    }

    /// The guest's memory may be kept: as a template, or as what this VM is put back to. For the latter only before its first
    /// request, or one request could choose what the next ones find; and it goes on when there is one. It goes on as one that
    /// begins with that memory does: with randomness and a clock of its own.
    fn template(&mut self, events: &impl Fn(VmEvent)) -> Step {
        if let Some((file, image)) = self.save.take() {
            let saved = template::save(self.machine.memory(), &image, self.exposed, &file);
            events(match saved {
                Ok(bytes) => VmEvent::Template(bytes),
                Err(e) => VmEvent::NoTemplate(e.to_string()),
            });
        }
        if self.untouched
            && let Some((_, origin)) = &mut self.reset
        {
            if let Err(e) = origin.take_checkpoint(self.machine.memory(), self.exposed) {
                return lost(format!("cannot keep what the VM is put back to: {e}"));
            }
            self.wait(None)?;
        }
        match crate::vm::write_seed(self.machine.memory()) {
            Ok(()) => Step::Continue(()),
            Err(e) => lost(e),
        }
    }

    /// Gives the guest more RAM: as much as it asks for, and as the limit allows.
    fn grow(&mut self) -> Step {
        let want = self.field(field::ARG0).min(self.limit);
        let want = want.next_multiple_of(layout::LARGE_PAGE).min(self.limit);
        if want > self.exposed {
            let more = want - self.exposed;
            if let Err(e) = self.machine.expose(layout::RAM + self.exposed, more, false) {
                return lost(e);
            }
            self.exposed = want;
        }
        let len = layout::BOOT + field::RAM_LEN;
        match self.machine.memory().write_u64(len, self.exposed) {
            Ok(()) => Step::Continue(()),
            Err(e) => lost(e),
        }
    }

    /// Gives the guest pages of its RAM, which it gets by touching them too, but one by one.
    fn populate(&self) {
        let len = self.field(field::ARG1).min(MOST_POPULATED) & !(PAGE - 1);
        let start = self.field(field::ARG0) & !(PAGE - 1);
        let offset = start.checked_sub(layout::RAM);
        let end = offset.and_then(|offset| offset.checked_add(len));
        if end.is_some_and(|end| end <= self.exposed) {
            // Without memory for it, the guest's own touch will tell.
            let _ = self.machine.memory().populate(start, len);
        }
    }

    /// Waits for the router, the guest's timer of so many nanoseconds, or a kick. Puts the VM back if it is asked to.
    fn wait(&mut self, ns: Option<u64>) -> Step {
        let timeout = ns.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
        });
        self.untouched = false;
        self.teach();
        // Whoever sleeps holds no processor: the watch leaves it alone.
        self.shared.asleep.store(true, Ordering::Relaxed);
        let woken = self.poll(timeout.as_ref());
        self.shared.asleep.store(false, Ordering::Relaxed);
        woken?;
        self.set_clock()
    }

    /// The guest sleeps. If it has answered its first request, the next VM is to know what it wrote.
    fn teach(&mut self) {
        if self.shared.exits.load(Ordering::Relaxed) > 0 {
            let memory = self.machine.memory();
            self.learn
                .take_if(|lesson| lesson.end(memory, self.exposed));
        }
    }

    fn poll(&mut self, timeout: Option<&Timespec>) -> Step {
        let Some((fds, origin)) = &self.reset else {
            return match poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], timeout) {
                Ok(0) | Err(Errno::INTR) => Step::Continue(()),
                Ok(_) => {
                    take(&self.wake);
                    Step::Continue(())
                }
                Err(e) => lost(format!("cannot wait for the router: {e}")),
            };
        };
        let mut timeout = timeout;
        loop {
            let mut polled = [
                PollFd::new(&self.wake, PollFlags::IN),
                PollFd::new(&fds.request, PollFlags::IN),
            ];
            match poll(&mut polled, timeout) {
                Ok(0) => return Step::Continue(()),
                // A guest that was put back sleeps on, until the router wakes it or the VM is to end.
                Err(Errno::INTR)
                    if timeout.is_some() || self.shared.stop.load(Ordering::SeqCst) =>
                {
                    return Step::Continue(());
                }
                Err(Errno::INTR) => continue,
                Err(e) => return lost(format!("cannot wait for the router: {e}")),
                Ok(_) => {}
            }
            let [wake, request] = polled.map(|p| p.revents().contains(PollFlags::IN));
            if request {
                take(&fds.request);
                take(&self.wake);
                if let Err(e) = origin.restore(&self.machine, &mut self.vcpu, self.exposed) {
                    return lost(format!("cannot put the VM back: {e}"));
                }
                // The counter cannot be at its end: the router reads it before it asks again.
                let _ = rustix::io::write(&fds.done, &1_u64.to_ne_bytes());
                timeout = None;
                continue;
            }
            if wake {
                take(&self.wake);
                return Step::Continue(());
            }
        }
    }

    fn debug_line(&self) -> String {
        let len = self.field(field::ARG1).min(port::DEBUG_MAX);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        match self
            .machine
            .memory()
            .read(self.field(field::ARG0), &mut bytes)
        {
            Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => "(a line that is not in the guest's memory)".into(),
        }
    }

    /// A kick. If it is to take the processor from a request, the guest continues where it said: at one place if wasm
    /// code was running, at another one, on another stack, if the runtime was. One that finds ring 0, or an exception on
    /// its way there, does nothing: the next one finds something else.
    fn interrupted(&self) -> Step {
        if !self.shared.preempt.swap(false, Ordering::SeqCst) {
            return Step::Continue(());
        }
        let divert = || {
            let (at, stack) = self.vcpu.place()?;
            if self.vcpu.is_delivering()? {
                return Ok(());
            }
            let memory = self.machine.memory();
            if (self.field(field::WASM_START)..self.field(field::WASM_END)).contains(&at) {
                memory.write_u64(layout::BOOT + field::PREEMPT_RIP, at)?;
                self.vcpu.divert(self.field(field::PREEMPT_ENTRY), stack)?;
            } else if self.can_defer(stack) {
                memory.write_u64(layout::BOOT + field::DEFER_RIP, at)?;
                memory.write_u64(layout::BOOT + field::DEFER_RSP, stack)?;
                let entry = self.field(field::DEFER_ENTRY);
                self.vcpu.divert(entry, self.field(field::DEFER_STACK))?;
            } else {
                return Ok(());
            }
            self.shared.preemptions.fetch_add(1, Ordering::Relaxed);
            Ok::<_, sandbox_kvm::KvmError>(())
        };
        match divert() {
            Ok(()) => Step::Continue(()),
            Err(e) => lost(e),
        }
    }

    /// Whether the runtime, on this stack, may be interrupted for a kick: neither in ring 0, whose stack lies below all
    /// others, nor where it is at work on the last kick.
    fn can_defer(&self, stack: u64) -> bool {
        let own = self.field(field::DEFER_STACK);
        own != 0
            && self.field(field::DEFERRED) == 0
            && stack >= layout::RUNTIME
            && !(own.saturating_sub(PAGE)..=own).contains(&stack)
    }
}
