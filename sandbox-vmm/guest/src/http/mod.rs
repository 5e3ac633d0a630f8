//! `wasi:http`.
//!
//! - [`fields`]: headers and trailers.
//! - [`incoming`]: requests and responses that come in, and their bodies.
//! - [`outgoing`]: the component's response.
//! - [`outbound`]: requests that the component makes.
//! - [`body`]: what is sent, of either.
//! - [`codes`]: error codes and their numbers on the rings.
//! - [`held`]: what all of it may keep in memory.
//! - [`syntax`]: what HTTP allows in methods, names, values and URIs.

pub mod body;
pub mod codes;
pub mod fields;
pub mod held;
pub mod incoming;
pub mod outbound;
pub mod outgoing;
pub mod syntax;

use crate::link::bindings::wasi::http::types::{self, ErrorCode};
use crate::runtime::State;
use crate::wasi::io::IoError;
use wasmtime::Result;
use wasmtime::component::Resource;

impl types::Host for State {
    fn http_error_code(&mut self, error: Resource<IoError>) -> Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.http.clone())
    }
}
