//! Tests of the whole node against the real thing, and its benchmarks.
