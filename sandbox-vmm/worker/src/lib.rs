//! The process that holds the microVMs of one tenant.
