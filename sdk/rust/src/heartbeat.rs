//! Progress out, wishes of the host in. No grant needed, and nobody has to beat to be taken for alive.

#[cfg(target_family = "wasm")]
use crate::bindings::imports::skep::agent::heartbeat as host;
#[cfg(not(target_family = "wasm"))]
use crate::double::heartbeat as host;

pub use crate::bindings::imports::skep::agent::heartbeat::Directive;

/// Say how far the attempt is, 0 to 100 or `None` when it cannot tell, and hear what the host wishes.
pub fn beat(percent: impl Into<Option<u8>>) -> Directive {
    host::beat(percent.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double;

    #[test]
    fn beats_go_out_and_directives_come_in() {
        assert_eq!(beat(10), Directive::Continue);
        double::direct(Directive::Drain);
        assert_eq!(beat(None), Directive::Drain);
        assert_eq!(double::beats(), [Some(10), None]);
    }
}
