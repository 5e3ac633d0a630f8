//! What the guest's processor says of itself.
//!
//! KVM's list of what it supports, and the instruction sets of this processor that need nothing of KVM: code in ring 3
//! executes them as they are, whether KVM's list has them or not. (A KVM that is nested without hardware help leaves
//! out all of them.) What guests must not use, nested virtualization above all, stays out as KVM has it.

use crate::machine::{KvmError, call};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;
use std::arch::is_x86_feature_detected as has;
use std::arch::x86_64::{__cpuid, __cpuid_count};

/// Leaf 1, ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
/// Bit numbers here and below: Intel SDM, volume 2A, CPUID.
const LEAF_1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// Of these, what needs the AVX state.
const LEAF_1_ECX_AVX: u32 = bits(&[12, 28, 29]);
/// Leaf 7, EBX: BMI1, AVX2, BMI2, RDSEED, ADX.
const LEAF_7_EBX: u32 = bits(&[3, 5, 8, 18, 19]);
/// Of these, what needs the AVX state.
const LEAF_7_EBX_AVX: u32 = bits(&[5]);
/// Leaf 0x8000_0001, ECX: LZCNT.
const EXTENDED_ECX: u32 = bits(&[5]);

const fn bits(numbers: &[u32]) -> u32 {
    let mut mask = 0;
    let mut n = 0;
    while n < numbers.len() {
        mask |= 1 << numbers[n];
        n += 1;
    }
    mask
}

/// Whether guests have the registers of AVX: processor and operating system keep them.
pub(crate) fn has_avx() -> bool {
    has!("avx")
}

/// The guest's leaves.
pub(crate) fn leaves(kvm: &Kvm) -> Result<CpuId, KvmError> {
    let mut leaves = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(call("KVM_GET_SUPPORTED_CPUID"))?;
    let (mut one, mut seven) = (LEAF_1_ECX, LEAF_7_EBX);
    if !has_avx() {
        one &= !LEAF_1_ECX_AVX;
        seven &= !LEAF_7_EBX_AVX;
    }
    for leaf in leaves.as_mut_slice() {
        match (leaf.function, leaf.index) {
            (1, _) => leaf.ecx |= __cpuid(1).ecx & one,
            (7, 0) => leaf.ebx |= __cpuid_count(7, 0).ebx & seven,
            (0x8000_0001, _) => leaf.ecx |= __cpuid(0x8000_0001).ecx & EXTENDED_ECX,
            _ => {}
        }
    }
    Ok(leaves)
}
