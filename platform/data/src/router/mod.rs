//! The router: takes connections, finds the app of each request, keeps HTTP's rules in both directions.

mod body;
pub(crate) mod fields;
pub(crate) mod observe;
mod pump;
mod reject;
mod scan;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod table;
mod wire;
