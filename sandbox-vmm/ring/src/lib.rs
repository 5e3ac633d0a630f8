//! Single-producer single-consumer rings over memory that a hostile peer may write.
