//! A typed client of the admin API.
