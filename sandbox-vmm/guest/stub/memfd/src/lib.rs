//! Empty: the guest has no files and so no memfd; a dependency names the crate all the same.
#![no_std]
