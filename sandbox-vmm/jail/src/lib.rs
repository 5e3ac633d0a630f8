//! What a process gives up before it touches a tenant's bytes.
