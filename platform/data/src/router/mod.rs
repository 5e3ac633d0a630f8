//! The router: takes connections, finds the app of each request, keeps HTTP's rules in both directions.

mod body;
pub(crate) mod fields;
mod local;
pub(crate) mod observe;
mod pump;
mod reject;
mod respond;
mod scan;
pub(crate) mod server;
pub(crate) mod service;
mod split;
pub(crate) mod table;
mod turn;
mod wire;
