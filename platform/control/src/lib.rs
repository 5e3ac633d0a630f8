//! The control plane: metadata store, artifacts, deploy engine, admin API.
