//! Builds and runs one microVM: boot image, page tables, exits, deadlines.
