//! Tests of the whole node against the real thing: a daemon in a process of its own, its workers, VMs and
//! guests, spoken to over TCP as clients do.
//!
//! This crate holds what the tests in `tests/` share; it is no part of the product and nobody else
//! depends on it. Tests need `/dev/kvm` and fail without it: a test that skips itself proves nothing.
//!
//! - [`node`]: a daemon on a folder of its own, ended when it is dropped or the test process ends.
//! - [`admin`]: the admin API over plain HTTP, so that the API itself is tested and not a client of it.
//! - [`client`]: HTTP/1.1 and HTTP/2 as a well-behaved client speaks them.
//! - [`raw`], [`frames`]: bytes and HTTP/2 frames as no well-behaved client sends them.
//! - [`dns`], [`authority`]: a name server, and a certificate authority that speaks ACME (Pebble).
//! - [`tls`]: HTTPS as a client speaks it that looks at what certificate it got.
//! - [`collector`]: takes traces by OTLP, as a collector of OpenTelemetry does.
//! - [`dice`]: numbers that look random and are the same in each run.
//! - [`fixture`]: components made on the spot, for what a component may do and must not.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test support: what goes wrong here has to fail the test at once"
)]

pub mod admin;
pub mod authority;
pub mod client;
pub mod collector;
pub mod dice;
pub mod dns;
pub mod fixture;
pub mod frames;
pub mod node;
pub mod process;
pub mod raw;
pub mod tls;
pub mod wait;

pub use client::Answer;
pub use node::Node;
