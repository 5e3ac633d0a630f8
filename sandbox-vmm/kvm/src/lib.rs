//! The unsafe fence over KVM: virtual machines, memory slots, virtual processors, kicks.
