//! A virtual machine with its memory and its one virtual processor.

use crate::cpuid;
use crate::memory::{GuestMemory, MemoryError, Slot};
use crate::vcpu::Vcpu;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
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

/// A virtual machine. Its memory lives as long as it does.
#[derive(Debug)]
pub struct Machine {
    // The VM goes before its memory: fields drop in this order.
    vm: VmFd,
    kvm: Kvm,
    memory: GuestMemory,
}

impl Machine {
    /// Makes a VM with these slots.
    pub fn new(slots: Vec<Slot>) -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(KvmError::Open)?;
        match kvm.get_api_version() {
            API_VERSION => {}
            other => return Err(KvmError::NotKvm(other)),
        }
        let vm = kvm.create_vm().map_err(call("KVM_CREATE_VM"))?;
        let shapes: Vec<_> = slots
            .iter()
            .map(|s| (s.gpa, s.len, s.is_read_only()))
            .collect();
        let memory = GuestMemory::map(slots)?;
        for (slot, (gpa, len, read_only)) in (0..).zip(shapes) {
            let region = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: gpa,
                memory_size: len,
                userspace_addr: memory.host_address(gpa)?,
                flags: if read_only { KVM_MEM_READONLY } else { 0 },
            };
            // SAFETY: the host range is one mapping of `memory`, which `self` keeps for as long as the VM and never
            // unmaps; Rust code reaches it only by volatile copies, so the guest's writes alias no reference.
            unsafe { vm.set_user_memory_region(region) }
                .map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(Machine { vm, kvm, memory })
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

    /// Makes the virtual processor. It may be used by one thread at a time.
    pub fn vcpu(&self) -> Result<Vcpu, KvmError> {
        let fd = self.vm.create_vcpu(0).map_err(call("KVM_CREATE_VCPU"))?;
        let cpuid = cpuid::leaves(&self.kvm)?;
        fd.set_cpuid2(&cpuid).map_err(call("KVM_SET_CPUID2"))?;
        Ok(Vcpu::new(fd))
    }
}
