//! A VM: from its descriptors to its running thread, and to its end.

use crate::factory::Factory;
use crate::hot::Lesson;
use crate::image::BootImage;
use crate::reset::Origin;
use crate::run::Processor;
use crate::tables;
use crate::template::{Template, TemplateError};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::io::Errno;
use sandbox_abi::boot::field;
use sandbox_abi::{expected, layout};
use sandbox_kvm::{GuestMemory, KvmError, MemoryError, Slot, Start, kick};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// What a VM is made of.
#[derive(Debug)]
pub struct VmDescriptors {
    /// The compiled component, a file.
    pub artifact: OwnedFd,
    /// The rings' memory: a memfd of [`layout::RINGS_LEN`] bytes that cannot shrink.
    pub rings: OwnedFd,
    /// Written by the router to wake the guest.
    pub wake: OwnedFd,
    /// Written by the guest's doorbell.
    pub doorbell: OwnedFd,
    /// The encoded configuration, a file of at most [`layout::CONFIG_MAX`] bytes. There may be secrets in it: it is copied into
    /// the guest past this process's own memory.
    pub config: OwnedFd,
}

/// How a VM begins.
#[derive(Debug)]
pub enum Begin {
    /// The guest runtime starts and loads the component. Its memory is then written to the file, if there is one.
    Boot(Option<OwnedFd>),
    /// From a template. The guest is entered when the router wakes it for the first time; one that is put back is entered at
    /// once, to make ready for its first request.
    Template(Arc<Template>),
}

/// How a router has a VM put back to its template.
#[derive(Debug)]
pub struct ResetDescriptors {
    /// Written by the router: the VM is to be put back as soon as the guest sleeps.
    pub request: OwnedFd,
    /// Written when it has been; the rings are zeroes then, and the guest waits to be woken.
    pub done: OwnedFd,
}

/// All that is said of a VM that is to be made.
#[derive(Debug)]
pub struct VmPlan {
    /// What it is made of.
    pub fds: VmDescriptors,
    /// Most bytes of RAM.
    pub ram: u64,
    /// How it begins.
    pub begin: Begin,
    /// How it is put back; for one that begins with a template.
    pub reset: Option<ResetDescriptors>,
}

/// A VM could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// KVM or the memory.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// RAM is outside of [`layout::RAM_MIN`]..=[`layout::RAM_MAX`].
    #[error("a VM has from {min} MiB to {max} MiB of memory, not {0} bytes", min = layout::RAM_MIN >> 20, max = layout::RAM_MAX >> 20)]
    RamSize(u64),
    /// The artifact is empty or above [`layout::ARTIFACT_MAX`].
    #[error("an artifact has from 1 to {max} bytes, not {0}", max = layout::ARTIFACT_MAX)]
    ArtifactSize(u64),
    /// The configuration is above [`layout::CONFIG_MAX`].
    #[error("the configuration of a deployment (its environment above all) has at most {max} bytes, not {0}", max = layout::CONFIG_MAX)]
    ConfigSize(u64),
    /// The rings' memory is not what it should be.
    #[error("the rings' memory is not {} bytes", layout::RINGS_LEN)]
    Rings,
    /// The kernel refused.
    #[error("{0} failed")]
    Kernel(&'static str, #[source] Errno),
    /// The template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Only a VM that began with a template can be put back to one.
    #[error("a VM that boots has no template to be put back to")]
    NoTemplate,
    /// No thread could be started.
    #[error("cannot start a thread for the virtual processor")]
    Thread(#[source] std::io::Error),
}

/// What happens to a VM.
#[derive(Debug, PartialEq, Eq)]
pub enum VmEvent {
    /// The guest's runtime wrote a line for the operator.
    Debug(String),
    /// Its memory was written to the file for it, and has so many bytes.
    Template(u64),
    /// Its memory was not written.
    NoTemplate(String),
    /// The VM ended by itself; why, for humans.
    Lost(String),
    /// The VM ended because [`Vm::stop`] was called.
    Stopped,
}

/// What the VM's thread and those who watch it share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The VM is to end.
    pub(crate) stop: AtomicBool,
    /// The next interruption is meant to take the processor from wasm code.
    pub(crate) preempt: AtomicBool,
    /// The guest has nothing to do, and its thread waits for the router or a timer.
    pub(crate) asleep: AtomicBool,
    /// The watcher has given up on the guest.
    pub(crate) stuck: AtomicBool,
    /// Exits to the VMM.
    pub(crate) exits: AtomicU64,
    /// Kicks that found wasm code.
    pub(crate) preemptions: AtomicU64,
}

/// A running VM. Dropping it stops it.
#[derive(Debug)]
pub struct Vm {
    pub(crate) shared: Arc<Shared>,
    pub(crate) memory: GuestMemory,
    thread: Option<JoinHandle<()>>,
}

/// The numbers of the memory slots, in the order in which they are mapped.
pub(crate) const RINGS_SLOT: u32 = 2;

/// How the processor of every VM starts, but for where.
pub(crate) const START: Start = Start {
    entry: 0,
    stack: layout::RAM + BOOT_STACK,
    page_tables: [layout::PML4, layout::PML4_ALT],
    gdt: layout::GDT,
    idt: layout::IDT,
    tss: layout::TSS,
    steal: layout::BOOT + field::STEAL,
};

impl Vm {
    /// Makes a VM as `plan` says and starts it. `events` is called on the VM's thread;
    /// [`VmEvent::Lost`] or [`VmEvent::Stopped`] comes exactly once, last.
    pub fn start(
        factory: &Factory,
        plan: VmPlan,
        events: impl Fn(VmEvent) + Send + 'static,
    ) -> Result<Vm, VmError> {
        let limit = plan.ram & !(layout::LARGE_PAGE - 1);
        if !(layout::RAM_MIN..=layout::RAM_MAX).contains(&limit) {
            return Err(VmError::RamSize(limit));
        }
        let config_len = size(&plan.fds.config)?;
        if config_len > layout::CONFIG_MAX {
            return Err(VmError::ConfigSize(config_len));
        }
        let artifact_len = size(&plan.fds.artifact)?;
        if !(1..=layout::ARTIFACT_MAX).contains(&artifact_len) {
            return Err(VmError::ArtifactSize(artifact_len));
        }
        if size(&plan.fds.rings)? != layout::RINGS_LEN {
            return Err(VmError::Rings);
        }
        let image = Arc::clone(&factory.image);
        let (exposed, prefix) = match &plan.begin {
            Begin::Boot(_) => (layout::RAM_FIRST, None),
            // A template of a deployment with more memory does not fit into less.
            Begin::Template(t) if t.exposed > limit => return Err(VmError::RamSize(limit)),
            Begin::Template(t) => (t.exposed, t.prefix()?),
        };
        let system = image.fd().map_err(|e| VmError::Kernel("dup", e))?;
        let blank = factory.blank()?;
        let fresh = match plan.reset {
            Some(_) => Some(factory.fresh(&blank)?),
            None => None,
        };
        let (machine, mut vcpu) = blank.map(vec![
            Slot::private(0, layout::SYSTEM_LEN, system),
            Slot::read_only(
                layout::ARTIFACT,
                artifact_len.next_multiple_of(layout::PAGE),
                plan.fds.artifact,
            ),
            Slot::shared(layout::RINGS, layout::RINGS_LEN, plan.fds.rings),
            Slot::anonymous(layout::RAM, limit, exposed, prefix),
        ])?;
        machine.doorbell(sandbox_abi::port::DOORBELL, plan.fds.doorbell)?;
        let memory = machine.memory().clone();
        let boot = Boot {
            ram: exposed,
            limit,
            artifact: artifact_len,
            config: plan.fds.config,
            config_len,
            tsc_khz: vcpu.tsc_khz(),
        };
        let (mut save, mut reset, mut learn) = (None, None, None);
        // One that is put back makes ready first: see `Processor::template`.
        let parked = matches!(plan.begin, Begin::Template(_)) && plan.reset.is_none();
        match plan.begin {
            Begin::Boot(file) => {
                if plan.reset.is_some() {
                    return Err(VmError::NoTemplate);
                }
                write_tables(&memory, &image, exposed)?;
                write_boot(&memory, &image, &boot)?;
                vcpu.start(&Start {
                    entry: image.entry,
                    ..START
                })?;
                save = file.map(|file| (file, Arc::clone(&image)));
            }
            Begin::Template(template) => {
                template.apply(&memory)?;
                write_boot(&memory, &image, &boot)?;
                if plan.reset.is_none()
                    && let Some(id) = template.id()
                {
                    learn = Lesson::begin(&factory.hot, id, &memory)?;
                }
                crate::reset::start(&machine, &mut vcpu)?;
                if let (Some(fds), Some(fresh)) = (plan.reset, fresh) {
                    let origin = Origin {
                        image,
                        template,
                        checkpoint: None,
                        boot,
                        fresh,
                        tables: None,
                    };
                    reset = Some((fds, origin));
                }
            }
        }
        kick::prepare();
        let shared = Arc::new(Shared::default());
        let mut processor = Processor {
            parked,
            untouched: true,
            machine,
            vcpu,
            wake: plan.fds.wake,
            shared: Arc::clone(&shared),
            debug_lines: 0,
            last_line: String::new(),
            exposed,
            limit,
            save,
            reset,
            learn,
        };
        let thread = factory.runner().map_err(VmError::Thread)?.run(move || {
            let last = processor.run(&events);
            drop(processor);
            events(last);
        });
        Ok(Vm {
            shared,
            memory,
            thread: Some(thread),
        })
    }

    /// Asks the VM to end; [`VmEvent::Stopped`] says when it has. Repeated by the watch until it has.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.kick();
    }

    /// Gets the thread out of the guest, if it is there.
    pub(crate) fn kick(&self) {
        if let Some(thread) = &self.thread
            && !thread.is_finished()
        {
            kick::kick(thread);
        }
    }

    /// Whether its thread has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Exits to the VMM so far.
    pub fn exits(&self) -> u64 {
        self.shared.exits.load(Ordering::Relaxed)
    }

    /// Kicks that found wasm code running.
    pub fn preemptions(&self) -> u64 {
        self.shared.preemptions.load(Ordering::Relaxed)
    }

    /// Bytes of RAM that are in the machine's memory now.
    pub fn resident(&self) -> u64 {
        self.memory.resident(layout::RAM)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else {
            return;
        };
        // A kick can be lost, so it is repeated; the thread is at most one exit away from its end.
        while !thread.is_finished() {
            kick::kick(&thread);
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        let _ = thread.join();
    }
}

/// Bytes of RAM at its start that are the guest's first stack.
const BOOT_STACK: u64 = 1 << 20;

fn size(fd: &OwnedFd) -> Result<u64, VmError> {
    let stat = rustix::fs::fstat(fd).map_err(|e| VmError::Kernel("fstat", e))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// What the boot page and the configuration's pages say.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) ram: u64,
    pub(crate) limit: u64,
    pub(crate) artifact: u64,
    pub(crate) config: OwnedFd,
    pub(crate) config_len: u64,
    pub(crate) tsc_khz: u32,
}

fn write_tables(memory: &GuestMemory, image: &BootImage, ram: u64) -> Result<(), VmError> {
    let mut failed = Ok(());
    tables::write(&image.stretches, ram, |address, entry| {
        if failed.is_ok() {
            failed = memory.write_u64(address, entry);
        }
    });
    Ok(failed?)
}

/// Writes what each VM has of its own: a seed, the clock, sizes, the configuration.
pub(crate) fn write_boot(
    memory: &GuestMemory,
    image: &BootImage,
    boot: &Boot,
) -> Result<(), VmError> {
    memory.load(layout::CONFIG, boot.config_len, boot.config.as_fd(), 0)?;
    let text_end = image
        .stretches
        .iter()
        .filter(|s| s.flags & tables::WRITE == 0)
        .map(|s| s.end)
        .max();
    for (offset, value) in [
        (field::VERSION, sandbox_abi::VERSION),
        (field::ARTIFACT_LEN, boot.artifact),
        (field::CONFIG_LEN, boot.config_len),
        (field::RAM_LEN, boot.ram),
        (field::RAM_LIMIT, boot.limit),
        (field::TSC_KHZ, u64::from(boot.tsc_khz)),
        (field::RUNTIME_END, image.end),
        (field::TEXT_END, text_end.unwrap_or(layout::RUNTIME)),
        (field::EXPECTED, expected::state::NONE),
        (field::EXPECTED_COUNT, 0),
    ] {
        memory.write_u64(layout::BOOT + offset, value)?;
    }
    write_seed(memory)
}

/// Writes randomness and the time of day: no two VMs that begin with one template may share them.
pub(crate) fn write_seed(memory: &GuestMemory) -> Result<(), VmError> {
    let mut seed = [0; 32];
    let got = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    got.map_err(|e| VmError::Kernel("getrandom", e))?;
    memory.write(layout::BOOT + field::SEED, &seed)?;
    memory.write_u64(layout::BOOT + field::WALL_NS, crate::run::wall_ns())?;
    Ok(())
}
