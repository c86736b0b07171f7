//! Who and where this attempt is. No grant needed.

#[cfg(target_family = "wasm")]
use crate::bindings::imports::skep::agent::context as host;
#[cfg(not(target_family = "wasm"))]
use crate::double::context as host;

pub use crate::bindings::imports::skep::agent::context::Identity;

/// The identity that the host gave this attempt.
pub fn current() -> Identity {
    host::current()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double;

    #[test]
    fn a_test_chooses_who_it_is() {
        let mut identity = current();
        assert_eq!(identity.attempt, 1);
        identity.attempt = 2;
        double::identify(identity.clone());
        assert_eq!(current(), identity);
    }
}
