//! Compiles a component into the artifact that a guest runs, in a process of its own.
