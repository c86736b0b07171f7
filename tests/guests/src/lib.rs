//! The agents of the host's tests: `examples/*.rs`, one component each, told what to do by their input.
