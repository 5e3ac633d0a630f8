//! The control plane: metadata store, artifacts, deploy engine, admin API.
//!
//! # Map
//! | module | what |
//! |---|---|
//! | [`data_dir`] | the data folder and its lock |
//! | [`store`] | what the node remembers |

#![forbid(unsafe_code)]

pub mod data_dir;
pub mod store;
