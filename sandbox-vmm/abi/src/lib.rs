//! The contract between host and guest: memory layout, ports, messages.
