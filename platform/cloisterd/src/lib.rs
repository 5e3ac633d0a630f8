//! The node: control plane, data plane and the roles of the one executable.
//!
//! `cloisterd` and `cloister` are the same program under two names; [`role`] tells which part a process plays. The
//! node never opens `/dev/kvm`: its workers do, one for each tenant.
//!
//! # Map
//! | module | what |
//! |---|---|
//! | [`role`] | daemon, worker or compiler, by the arguments |
//! | [`options`] | the daemon's command line |
//! | [`failure`] | why the daemon ended, and with which exit code |
//! | `node` | starts the parts in order, waits for a signal, stops them in order |
//! | `serve` | connections of the control plane: how many, and for how long without a request |
//! | `kvm` | whether workers will be able to use KVM |
//! | `token` | the token of the admin API |
//! | `compiler` | the compiler's process, as the control plane sees it |
//! | `logging` | the node's own log, on standard error |
//! | `access` | where requests are told of when they have ended |
//! | `otlp` | sends traces to a collector |

#![forbid(unsafe_code)]

mod access;
mod compiler;
pub mod failure;
mod kvm;
mod logging;
mod node;
pub mod options;
mod otlp;
pub mod role;
mod serve;
mod token;
