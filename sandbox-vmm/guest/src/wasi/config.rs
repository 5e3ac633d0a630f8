//! `wasi:config`: the store has the variables of the environment.

use crate::link::bindings::wasi::config::store::{Error, Host};
use crate::runtime::{Asked, State};
use crate::wasi::cli::variables;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use wasmtime::Result;

impl Host for State {
    fn get(&mut self, key: String) -> Result<core::result::Result<Option<String>, Error>> {
        self.note(Asked::Settings);
        let mut variables = self.settings.env.iter();
        let found = variables.find(|(name, _)| *name == key);
        Ok(Ok(found.map(|(_, value)| value.to_string())))
    }

    fn get_all(&mut self) -> Result<core::result::Result<Vec<(String, String)>, Error>> {
        Ok(Ok(variables(self)))
    }
}
