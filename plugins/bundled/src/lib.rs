//! The first-party plugins as WebAssembly components, built from the folders beside this one whenever they change.
//!
//! They are as a publisher's compiler leaves them: neither do they hold their manifest yet, nor are they signed.

/// A plugin that comes with Skep.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// The name after the `/` in its manifest, for example `echo`.
    pub name: &'static str,
    /// The component.
    pub component: &'static [u8],
    /// The text of its `skep.toml`.
    pub manifest: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// The bundled plugin of that name.
pub fn get(name: &str) -> Option<&'static Bundled> {
    ALL.iter().find(|plugin| plugin.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_is_a_component_and_carries_its_own_manifest() {
        for plugin in ALL {
            // The magic number, then the version and layer of components.
            assert!(plugin.component.starts_with(b"\0asm\x0d\0\x01\0"), "{}", plugin.name);
            assert!(
                plugin.manifest.contains(&format!("name = \"skep/{}\"\n", plugin.name)),
                "{}",
                plugin.name
            );
        }
    }

    #[test]
    fn plugins_are_found_by_name() {
        assert_eq!(get("echo").unwrap().name, "echo");
        assert!(get("no-such-plugin").is_none());
    }
}
