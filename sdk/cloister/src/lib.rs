//! The command line of Cloister.
