//! The HTTP API.

pub mod api;
