//! The node: control plane, data plane and the roles of the one executable.
