//! The control plane: metadata store, artifacts, deploy engine, admin API.
//!
//! It may be down without a request being lost: requests meet only what it has published to the data plane.
//!
//! # Invariants
//! - What was acknowledged is on the disk: a write is synced before it is answered.
//! - What was not acknowledged leaves nothing, at the latest when the node starts again.
//! - No KVM here, no code of a tenant runs here, and none is compiled here.
//!
//! # Map
//! | module | what |
//! |---|---|
//! | [`data_dir`] | the data folder and its lock |
//! | [`store`] | what the node remembers: keys and values with transactions, on sled, and typed records above |
//! | [`components`] | uploaded components on disk |
//! | [`sandbox`] | the neighbours as traits: compiler and data plane |
//! | [`engine`] | deploys, deletes, restores at the start, collects what is left over |
//! | [`logs`] | what components write |
//! | [`proof`], [`acme`] | whose a domain is; certificates from an authority |
//! | [`metrics`] | what is counted, as a page for Prometheus |
//! | [`sealing`] | values that the disk does not tell |
//! | [`keyring`] | the keys that seal them |
//! | [`check`] | whether a data folder is in itself as it should be |
//! | [`problem`] | errors of the API, with their codes |
//! | [`api`] | the admin API |

#![forbid(unsafe_code)]

pub mod acme;
pub mod api;
pub mod check;
pub mod components;
pub mod data_dir;
pub mod engine;
#[cfg(test)]
mod fake;
pub mod keyring;
pub mod logs;
pub mod metrics;
pub mod problem;
pub mod proof;
pub mod sandbox;
pub mod sealing;
pub mod store;
