//! Names, limits and API types that every part of the platform shares.
