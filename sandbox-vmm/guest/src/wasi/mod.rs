//! `wasi:cli/imports` of WASI 0.2, and `wasi:config`: one module a package.

pub mod cli;
pub mod clocks;
pub mod config;
pub mod filesystem;
pub mod io;
pub mod random;
pub mod scratch;
pub mod sockets;
