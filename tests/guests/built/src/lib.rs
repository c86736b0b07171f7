//! The test agents as bytes: one constant for each file in `tests/guests/examples`.

include!(concat!(env!("OUT_DIR"), "/guests.rs"));
