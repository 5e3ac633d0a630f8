//! The virtual processor: how it starts, and why it comes back.

use crate::cpuid;
use crate::machine::{KvmError, call};
use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_vcpu_events,
    kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};

/// Where and how the guest starts: 64-bit mode, ring 3, ports allowed (IOPL 3).
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// First instruction.
    pub entry: u64,
    /// Stack pointer.
    pub stack: u64,
    /// Roots of the page tables, with the same content: it starts with the one that it does not have, as a change of root
    /// has it look at the tables again.
    pub page_tables: [u64; 2],
    /// Global descriptor table, laid out as [`Start::gdt_entries`].
    pub gdt: u64,
    /// Interrupt descriptor table of 32 entries.
    pub idt: u64,
    /// Task state segment.
    pub tss: u64,
    /// Where KVM accounts for stolen time: 64 bytes, aligned to as many.
    pub steal: u64,
}

impl Start {
    /// Ring-0 code.
    pub const KERNEL_CODE: u16 = 0x08;
    /// Ring-3 code.
    pub const USER_CODE: u16 = 0x23;
    /// Ring-3 data and stack.
    pub const USER_DATA: u16 = 0x1b;
    /// Task state segment.
    pub const TASK: u16 = 0x28;
    /// Bytes of the task state segment, less one.
    pub const TSS_LIMIT: u64 = 0x67;

    /// The descriptors, in order, for a task state segment at `tss` (below 16 MiB).
    pub fn gdt_entries(tss: u64) -> [u64; 7] {
        [
            0,
            0x00af_9b00_0000_ffff, // 0x08: code, ring 0, 64 bit
            0x00cf_9300_0000_ffff, // 0x10: data, ring 0
            0x00cf_f300_0000_ffff, // 0x18: data, ring 3
            0x00af_fb00_0000_ffff, // 0x20: code, ring 3, 64 bit
            0x0000_8b00_0000_0000 | Self::TSS_LIMIT | (tss & 0x00ff_ffff) << 16,
            0,
        ]
    }
}

/// Why the guest was left.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// It wrote a byte to this port.
    Port(u16),
    /// A kick, or another signal.
    Interrupted,
    /// It cannot go on: triple fault, an access to nowhere, an instruction that KVM does not emulate.
    Lost(String),
}

/// A virtual processor.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    tsc_khz: u32,
}

/// All of a processor's state that [`Vcpu::start`] does not set: what a guest could leave behind in it.
pub struct Fresh {
    xsave: Box<kvm_xsave>,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    msrs: Msrs,
}

impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fresh")
            .field("msrs", &self.msrs.as_slice().len())
            .finish_non_exhaustive()
    }
}

/// The time stamp counter: it goes on.
const MSR_TSC: u32 = 0x10;
/// Where the account of stolen time is kept, and whether (bit 0): Linux, `Documentation/virt/kvm/x86/msr.rst`.
const MSR_STEAL_TIME: u32 = 0x4b56_4d03;

impl Vcpu {
    pub(crate) fn new(fd: VcpuFd) -> Result<Self, KvmError> {
        let tsc_khz = fd.get_tsc_khz().map_err(call("KVM_GET_TSC_KHZ"))?;
        Ok(Vcpu { fd, tsc_khz })
    }

    /// Puts it before its first instruction.
    pub fn start(&mut self, start: &Start) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(call("KVM_GET_SREGS"))?;
        sregs.cs = segment(Start::USER_CODE, 0xb, 1, 0);
        let data = segment(Start::USER_DATA, 0x3, 0, 1);
        (sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs) = (data, data, data, data, data);
        sregs.tr = kvm_segment {
            base: start.tss,
            limit: 0x67,
            selector: Start::TASK,
            type_: 0xb,
            present: 1,
            ..Default::default()
        };
        sregs.gdt = kvm_dtable {
            base: start.gdt,
            limit: 7 * 8 - 1,
            ..Default::default()
        };
        sregs.idt = kvm_dtable {
            base: start.idt,
            limit: 32 * 16 - 1,
            ..Default::default()
        };
        sregs.cr3 = other(sregs.cr3, start.page_tables);
        sregs.cr0 = 0x8005_0033; // PG AM WP NE ET MP PE
        sregs.cr4 = 0x0005_0620; // OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PAE
        sregs.efer = 0xd01; // NXE LMA LME SCE
        self.fd.set_sregs(&sregs).map_err(call("KVM_SET_SREGS"))?;
        let mut xcrs = self.fd.get_xcrs().map_err(call("KVM_GET_XCRS"))?;
        xcrs.nr_xcrs = 1;
        if let Some(xcr0) = xcrs.xcrs.first_mut() {
            // x87 and SSE; AVX where there is any.
            (xcr0.xcr, xcr0.value) = (0, if cpuid::has_avx() { 7 } else { 3 });
        }
        self.fd.set_xcrs(&xcrs).map_err(call("KVM_SET_XCRS"))?;
        let regs = kvm_regs {
            rip: start.entry,
            rsp: start.stack,
            rflags: 0x3002,
            ..Default::default()
        };
        let steal = kvm_msr_entry {
            index: MSR_STEAL_TIME,
            data: start.steal | 1,
            ..Default::default()
        };
        let steal = Msrs::from_entries(&[steal]).map_err(|_| too_many())?;
        // A kernel without such an account sets nothing, and stolen time counts as the guest's.
        let _ = self.fd.set_msrs(&steal);
        self.fd.set_regs(&regs).map_err(call("KVM_SET_REGS"))
    }

    /// Has KVM do now what it leaves for a machine's first run, to start a thread of its own above all (the kernel's
    /// `kvm_mmu_post_init_vm`): nothing is run.
    pub(crate) fn prepare(&mut self) {
        self.fd.set_kvm_immediate_exit(1);
        // It comes back with EINTR. What else may be wrong the first run tells.
        let _ = self.fd.run();
        self.fd.set_kvm_immediate_exit(0);
    }

    /// Runs the guest until it comes back.
    pub fn run(&mut self) -> Result<Exit, KvmError> {
        match self.fd.run() {
            Ok(VcpuExit::IoOut(port, _)) => Ok(Exit::Port(port)),
            Ok(VcpuExit::Intr) => Ok(Exit::Interrupted),
            Ok(other) => {
                let what = format!("{other:?}");
                let at = self.fd.get_regs().map_or(0, |r| r.rip);
                Ok(Exit::Lost(format!("{what} at instruction {at:#x}")))
            }
            Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => {
                Ok(Exit::Interrupted)
            }
            Err(cause) => Err(KvmError::Call {
                call: "KVM_RUN",
                cause,
            }),
        }
    }

    /// The state of a processor that has not run yet; `kvm` lists the model-specific registers.
    pub(crate) fn fresh(&self, kvm: &Kvm) -> Result<Fresh, KvmError> {
        let list = kvm
            .get_msr_index_list()
            .map_err(call("KVM_GET_MSR_INDEX_LIST"))?;
        let mut entries = Vec::new();
        for index in list.as_slice().iter().filter(|index| **index != MSR_TSC) {
            let entry = kvm_msr_entry {
                index: *index,
                ..Default::default()
            };
            let mut one = Msrs::from_entries(&[entry]).map_err(|_| too_many())?;
            // Some that the list has cannot be read, or not be written back: a guest cannot write those either.
            if self.fd.get_msrs(&mut one).is_ok_and(|n| n == 1)
                && self.fd.set_msrs(&one).is_ok_and(|n| n == 1)
            {
                entries.extend_from_slice(one.as_slice());
            }
        }
        Ok(Fresh {
            xsave: Box::new(self.fd.get_xsave().map_err(call("KVM_GET_XSAVE"))?),
            debug: self
                .fd
                .get_debug_regs()
                .map_err(call("KVM_GET_DEBUGREGS"))?,
            events: self
                .fd
                .get_vcpu_events()
                .map_err(call("KVM_GET_VCPU_EVENTS"))?,
            msrs: Msrs::from_entries(&entries).map_err(|_| too_many())?,
        })
    }

    /// Takes away what a guest may have left in the registers that [`Vcpu::start`] does not set. To be called before it.
    pub fn renew(&mut self, fresh: &Fresh) -> Result<(), KvmError> {
        // SAFETY: the guest has no feature whose state does not fit `kvm_xsave`: XCR0 is set by `start`, and AMX is not
        // permitted to this process, as nobody asked for it (`ARCH_REQ_XCOMP_GUEST_PERM`).
        unsafe { self.fd.set_xsave(&fresh.xsave) }.map_err(call("KVM_SET_XSAVE"))?;
        self.fd
            .set_debug_regs(&fresh.debug)
            .map_err(call("KVM_SET_DEBUGREGS"))?;
        self.fd
            .set_vcpu_events(&fresh.events)
            .map_err(call("KVM_SET_VCPU_EVENTS"))?;
        let all = fresh.msrs.as_slice().len();
        match self
            .fd
            .set_msrs(&fresh.msrs)
            .map_err(call("KVM_SET_MSRS"))?
        {
            n if n == all => Ok(()),
            _ => Err(KvmError::Call {
                call: "KVM_SET_MSRS",
                cause: kvm_ioctls::Error::new(libc::EINVAL),
            }),
        }
    }

    /// Lets what the guest asked for by an `out` come to its end, without running the guest on.
    pub fn complete(&mut self) -> Result<(), KvmError> {
        self.fd.set_kvm_immediate_exit(1);
        let ran = self.run();
        self.fd.set_kvm_immediate_exit(0);
        ran.map(|_| ())
    }

    /// The instruction pointer and the stack pointer.
    pub fn place(&self) -> Result<(u64, u64), KvmError> {
        let regs = self.fd.get_regs().map_err(call("KVM_GET_REGS"))?;
        Ok((regs.rip, regs.rsp))
    }

    /// Lets the guest continue elsewhere and on another stack, all other registers as they are.
    pub fn divert(&self, to: u64, stack: u64) -> Result<(), KvmError> {
        let mut regs = self.fd.get_regs().map_err(call("KVM_GET_REGS"))?;
        (regs.rip, regs.rsp) = (to, stack);
        self.fd.set_regs(&regs).map_err(call("KVM_SET_REGS"))
    }

    /// Whether an exception is on its way to the guest, so that the instruction pointer is not yet its handler's.
    pub fn is_delivering(&self) -> Result<bool, KvmError> {
        let events = self
            .fd
            .get_vcpu_events()
            .map_err(call("KVM_GET_VCPU_EVENTS"))?;
        Ok(events.exception.injected != 0
            || events.interrupt.injected != 0
            || events.nmi.injected != 0)
    }

    /// Changes the root of the page tables, which forgets every cached translation.
    pub fn switch_page_tables(&self, choices: [u64; 2]) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(call("KVM_GET_SREGS"))?;
        sregs.cr3 = other(sregs.cr3, choices);
        self.fd.set_sregs(&sregs).map_err(call("KVM_SET_SREGS"))
    }

    /// Frequency of the guest's time stamp counter in kHz.
    pub fn tsc_khz(&self) -> u32 {
        self.tsc_khz
    }
}

/// The root that is not the one in use.
fn other(root: u64, [one, other]: [u64; 2]) -> u64 {
    if root == one { other } else { one }
}

fn too_many() -> KvmError {
    KvmError::Call {
        call: "KVM_GET_MSRS",
        cause: kvm_ioctls::Error::new(libc::E2BIG),
    }
}

fn segment(selector: u16, type_: u8, long: u8, default: u8) -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 3,
        db: default,
        s: 1,
        l: long,
        g: 1,
        ..Default::default()
    }
}
