//! The host's KVM, and a virtual machine with its memory.

use crate::cpuid;
use crate::memory::{GuestMemory, MemoryError, Slot};
use crate::vcpu::{Fresh, Vcpu};
use kvm_bindings::{CpuId, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VmFd};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use vmm_sys_util::eventfd::EventFd;

/// KVM refused.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// `/dev/kvm` cannot be opened.
    #[error(
        "cannot open /dev/kvm: load the kvm module and give this user access to it (group kvm)"
    )]
    Open(#[source] kvm_ioctls::Error),
    /// What can be opened under its name is not KVM, or not the KVM of the last 18 years.
    #[error("/dev/kvm is not KVM's device: it answers with API version {0}, not 12")]
    NotKvm(i32),
    /// A call failed.
    #[error("{call} failed")]
    Call {
        /// The kernel's name of it.
        call: &'static str,
        /// The kernel's answer.
        #[source]
        cause: kvm_ioctls::Error,
    },
    /// The memory could not be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The only version of the API that there is: see `KVM_GET_API_VERSION` in the kernel's `virt/kvm/api.rst`.
const API_VERSION: i32 = 12;

pub(crate) fn call(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |cause| KvmError::Call { call, cause }
}

/// The host's KVM, opened once for all machines of a process.
#[derive(Debug)]
pub struct Host {
    kvm: Kvm,
    cpuid: CpuId,
    /// Whether the processor translates guest addresses itself; otherwise KVM keeps shadows of the guests' page tables.
    two_dimensional: bool,
}

impl Host {
    /// Opens `/dev/kvm`.
    pub fn open() -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(KvmError::Open)?;
        match kvm.get_api_version() {
            API_VERSION => {}
            other => return Err(KvmError::NotKvm(other)),
        }
        let cpuid = cpuid::leaves(&kvm)?;
        Ok(Host {
            kvm,
            cpuid,
            two_dimensional: two_dimensional_paging(),
        })
    }

    /// What the processor of a blank machine holds.
    pub fn fresh(&self, blank: &Blank) -> Result<Fresh, KvmError> {
        blank.vcpu.fresh(&self.kvm)
    }

    /// A machine without memory, and its virtual processor, which may be used by one thread at a time.
    pub fn blank(&self) -> Result<Blank, KvmError> {
        let vm = self.kvm.create_vm().map_err(call("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(call("KVM_CREATE_VCPU"))?;
        vcpu.set_cpuid2(&self.cpuid)
            .map_err(call("KVM_SET_CPUID2"))?;
        let mut vcpu = Vcpu::new(vcpu)?;
        vcpu.prepare();
        Ok(Blank {
            vcpu,
            vm,
            two_dimensional: self.two_dimensional,
        })
    }
}

/// Whether one of KVM's modules says that it uses EPT or NPT.
fn two_dimensional_paging() -> bool {
    ["kvm_intel/parameters/ept", "kvm_amd/parameters/npt"]
        .iter()
        .filter_map(|name| std::fs::read_to_string(format!("/sys/module/{name}")).ok())
        .any(|value| matches!(value.trim(), "Y" | "1"))
}

/// A machine without memory. It can be made before anyone knows what for.
#[derive(Debug)]
pub struct Blank {
    // The processor goes before the machine that it belongs to: fields drop in this order.
    vcpu: Vcpu,
    vm: VmFd,
    two_dimensional: bool,
}

impl Blank {
    /// Gives the machine its memory.
    pub fn map(self, slots: Vec<Slot>) -> Result<(Machine, Vcpu), KvmError> {
        let shapes: Vec<_> = slots
            .iter()
            .map(|s| (s.gpa, s.exposed, s.is_read_only()))
            .collect();
        let mut machine = Machine {
            vm: self.vm,
            memory: GuestMemory::map(slots)?,
            slots: 0,
            two_dimensional: self.two_dimensional,
        };
        for (gpa, len, read_only) in shapes {
            machine.expose(gpa, len, read_only)?;
        }
        Ok((machine, self.vcpu))
    }
}

/// A virtual machine. Its memory lives as long as it does.
#[derive(Debug)]
pub struct Machine {
    // The VM goes before its memory: fields drop in this order.
    vm: VmFd,
    memory: GuestMemory,
    /// Memory slots of KVM's so far.
    slots: u32,
    two_dimensional: bool,
}

impl Machine {
    /// Lets the guest use `len` bytes from `gpa`, which lie in a slot that was mapped, and were not exposed before.
    pub fn expose(&mut self, gpa: u64, len: u64, read_only: bool) -> Result<(), KvmError> {
        self.region(self.slots, gpa, len, read_only)?;
        self.slots += 1;
        Ok(())
    }

    fn region(&self, slot: u32, gpa: u64, len: u64, read_only: bool) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot,
            guest_phys_addr: gpa,
            memory_size: len,
            userspace_addr: self.memory.host_address(gpa, len)?,
            flags: if read_only { KVM_MEM_READONLY } else { 0 },
        };
        // SAFETY: `host_address` found the whole host range in one mapping of `memory`, which `self` keeps for as long as
        // the VM and never unmaps; Rust code reaches it only by volatile copies, so the guest's writes alias no reference.
        unsafe { self.vm.set_user_memory_region(region) }
            .map_err(call("KVM_SET_USER_MEMORY_REGION"))
    }

    /// Forgets every translation of guest addresses, after page tables in guest memory were written from outside.
    ///
    /// `Ok(false)`: this machine's processor reads the tables themselves, and forgets what it has read when
    /// [`Vcpu::start`] is called. Otherwise KVM's shadows of the tables are dropped: removing a memory slot does that
    /// (`KVM_SET_USER_MEMORY_REGION` in the kernel's `virt/kvm/api.rst`), so the one at `gpa` is removed and put back.
    pub fn forget_shadows(&self, slot: u32, gpa: u64, len: u64) -> Result<bool, KvmError> {
        if self.two_dimensional {
            return Ok(false);
        }
        self.region(slot, gpa, 0, false)?;
        self.region(slot, gpa, len, false)?;
        Ok(true)
    }

    /// The VMM's view of the guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Lets the guest's `out` to `port` write `event` instead of leaving the guest.
    pub fn doorbell(&self, port: u8, event: OwnedFd) -> Result<(), KvmError> {
        // SAFETY: the descriptor was owned, and its ownership goes over; a wrong kind of file only fails the call below.
        let event = unsafe { EventFd::from_raw_fd(event.into_raw_fd()) };
        debug_assert!(event.as_raw_fd() >= 0);
        // KVM takes a reference of its own to the eventfd, so it may be closed here.
        self.vm
            .register_ioevent(&event, &IoEventAddress::Pio(u64::from(port)), NoDatamatch)
            .map_err(call("KVM_IOEVENTFD"))
    }
}
