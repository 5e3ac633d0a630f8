//! The socket between daemon and worker: messages with descriptors.
