//! The data plane: router, sandbox pool, rings to the guests, egress.
