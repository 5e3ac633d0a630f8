//! A typed client of the admin API.
//!
//! [`Client`] has one method for each operation of the API and speaks in the types of `platform-model`. It is what the
//! command line is made of, and what a program that deploys to Cloister uses.
//!
//! # Invariants
//! - The token goes to the node that was named, and nowhere else: no proxy of the environment, no redirect.
//! - Whatever a node answers that is not what the API promises is a [`ClientError`], never a panic.
//! - An error that the node explained keeps its explanation: [`ClientError::Refused`] holds the whole problem.
//!
//! # Map
//! | module | what |
//! |---|---|
//! | [`client`] | the operations |
//! | [`releases`] | the operations on who answers for an app |
//! | [`access`] | the operations on tenants' quotas, tokens and the audit log |
//! | [`settings`] | the operations on configuration and secrets |
//! | [`hosts`] | the operations on routes, domains and certificates |
//! | [`error`] | what can go wrong, and whose turn it is then |
//! | [`upload`] | a component on its way to the node, with its progress |
//! | [`logs`] | an app's log as a stream of lines |
//! | [`timing`] | what the steps of a deploy took |

#![forbid(unsafe_code)]

pub mod access;
pub mod client;
pub mod error;
pub mod hosts;
pub mod logs;
pub mod releases;
pub mod settings;
pub mod timing;
mod transport;
pub mod upload;

pub use client::{Client, Deployed, Tagged};
pub use error::ClientError;
pub use logs::LogLines;
pub use platform_model::LogQuery;
pub use timing::Timing;
pub use upload::Progress;
