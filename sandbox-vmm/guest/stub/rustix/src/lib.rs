//! Empty: the guest has no kernel to call; a dependency names the crate all the same.
#![no_std]
