//! From the bytes of a component to code that can be instantiated, and the cache of such code on disk. A file of the cache is believed only when it
//! carries the tag that this host's own key makes over it: compiled code runs without further checks.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use skep_rules::{id::Digest, reason::Reason};
use wasmtime::{Engine, component::Component};

use crate::{engine::fingerprint, escape::escape, plugin::Refused};

/// Length of the tag at the head of a file.
const TAG: usize = 32;

/// Compiles, and keeps what it compiled.
#[derive(Debug)]
pub(crate) struct Compiler {
    dir: Option<PathBuf>,
    key: [u8; 32],
}

/// Where the code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Read from the cache.
    Cache,
    /// Compiled: nothing was in the cache.
    Compiled,
    /// Compiled: what was in the cache was not ours, and was replaced.
    Replaced,
}

impl Compiler {
    /// Keeps files in `dir`, authenticated under `key`; compiles anew each time without one.
    pub(crate) fn new(dir: Option<PathBuf>, key: [u8; 32]) -> Self {
        Compiler { dir, key }
    }

    /// The code of a component; `bytes` is asked for them only when they must be compiled. Takes seconds for large components and blocks.
    ///
    /// # Errors
    /// When the bytes cannot be had, are not those of the digest, or do not compile.
    pub(crate) fn load(
        &self,
        engine: &Engine,
        digest: Digest,
        bytes: impl FnOnce() -> std::io::Result<Vec<u8>>,
    ) -> Result<(Component, Origin), Refused> {
        let print = fingerprint(engine);
        let file = self.dir.as_deref().map(|dir| dir.join(name(digest, &print)));
        let mut origin = Origin::Compiled;
        if let Some(file) = &file {
            match self.read(engine, file, digest, &print) {
                Ok(Some(component)) => return Ok((component, Origin::Cache)),
                Ok(None) => {}
                Err(why) => {
                    tracing::warn!(file = %file.display(), why, "a file of the code cache was refused; compiling anew");
                    origin = Origin::Replaced;
                }
            }
        }
        let bytes = bytes().map_err(|error| refuse(Reason::NotFound, format!("cannot read the component: {error}")))?;
        if Digest::of(&bytes) != digest {
            return Err(refuse(
                Reason::HostFault,
                format!("the bytes of component {} are not those of its digest", digest.short()),
            ));
        }
        let code = compile(engine, &bytes)?;
        // Code that was compiled just now fits the engine; what can be refused is what it declares, by the pool.
        let component = deserialize(engine, &code).map_err(|error| {
            let text = escape(format!("{:#}", error.root_cause()).as_bytes(), 512);
            refuse(
                Reason::MemoryLimit,
                format!("the component declares more than any tier allows: {text}"),
            )
        })?;
        if let Some(file) = &file
            && let Err(error) = self.write(file, digest, &print, &code)
        {
            // Without the file the next start compiles again; nothing else is lost.
            tracing::warn!(file = %file.display(), %error, "cannot write to the code cache");
        }
        Ok((component, origin))
    }

    /// Reads a file: `None` when there is none.
    fn read(
        &self,
        engine: &Engine,
        file: &Path,
        digest: Digest,
        print: &[u8; 32],
    ) -> Result<Option<Component>, String> {
        let content = match std::fs::read(file) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("it cannot be read: {error}")),
        };
        let (tag, code) = content.split_first_chunk::<TAG>().ok_or("it is cut short")?;
        // The comparison of two `blake3::Hash` takes the same time wherever they differ.
        if blake3::Hash::from_bytes(*tag) != self.tag(digest, print, code) {
            return Err("its tag is not of this host's key: changed, foreign or damaged".into());
        }
        deserialize(engine, code)
            .map(Some)
            .map_err(|error| error.root_cause().to_string())
    }

    fn write(&self, file: &Path, digest: Digest, print: &[u8; 32], code: &[u8]) -> std::io::Result<()> {
        let dir = file.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut fresh = tempfile::NamedTempFile::new_in(dir)?;
        fresh.write_all(self.tag(digest, print, code).as_bytes())?;
        fresh.write_all(code)?;
        fresh.persist(file)?;
        Ok(())
    }

    /// Covers everything that decides whether the code may run here: whose it is, how it was compiled (wasmtime's version included) and each byte.
    fn tag(&self, digest: Digest, print: &[u8; 32], code: &[u8]) -> blake3::Hash {
        let mut tag = blake3::Hasher::new_keyed(&self.key);
        tag.update(b"skep code 1")
            .update(digest.as_bytes())
            .update(print)
            .update(code);
        tag.finalize()
    }
}

fn name(digest: Digest, print: &[u8; 32]) -> String {
    let print = blake3::Hash::from_bytes(*print).to_hex();
    format!("{digest}-{}.code", print.get(..16).unwrap_or_default())
}

fn refuse(reason: Reason, message: String) -> Refused {
    Refused { reason, message }
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
    if Engine::detect_precompiled(bytes).is_some() {
        let message = "the file is precompiled code, which is never accepted; upload the `.wasm` file itself";
        return Err(refuse(Reason::NotAComponent, message.into()));
    }
    engine.precompile_component(bytes).map_err(|error| {
        let text = escape(format!("{:#}", error.root_cause()).as_bytes(), 512);
        refuse(Reason::CompileLimit, format!("the component does not compile: {text}"))
    })
}

fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the code was made by `precompile_component` in this process, or by a process that holds this host's key: its keyed tag over component,
    // configuration and every byte was compared just before.
    #[expect(unsafe_code, reason = "wasmtime cannot check compiled code; the tag does")]
    unsafe {
        Component::deserialize(engine, code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engines;

    const COMPONENT: &str =
        r#"(component (core module $m (func (export "f") (result i32) i32.const 7)) (core instance (instantiate $m)))"#;

    fn never() -> std::io::Result<Vec<u8>> {
        Err(std::io::Error::other("not asked for"))
    }

    #[test]
    fn the_cache_believes_only_its_own_files() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engines::new(2).unwrap().of(Default::default()).unwrap();
        let bytes = wat::parse_str(COMPONENT).unwrap();
        let digest = Digest::of(&bytes);
        let compiler = Compiler::new(Some(dir.path().into()), [1; 32]);
        let origin = |compiler: &Compiler| {
            compiler
                .load(&engine, digest, || Ok(bytes.clone()))
                .map(|(_, origin)| origin)
        };

        assert_eq!(origin(&compiler), Ok(Origin::Compiled));
        assert_eq!(
            compiler.load(&engine, digest, never).map(|(_, origin)| origin),
            Ok(Origin::Cache)
        );
        assert_eq!(
            origin(&Compiler::new(Some(dir.path().into()), [2; 32])),
            Ok(Origin::Replaced)
        );

        let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let good = std::fs::read(&file).unwrap();
        for at in [0, TAG, good.len() / 2, good.len() - 1] {
            let mut changed = good.clone();
            changed[at] ^= 1;
            std::fs::write(&file, changed).unwrap();
            assert_eq!(
                origin(&Compiler::new(Some(dir.path().into()), [2; 32])),
                Ok(Origin::Replaced),
                "byte {at}"
            );
        }
        std::fs::write(&file, &good[..TAG - 1]).unwrap();
        assert_eq!(
            origin(&Compiler::new(Some(dir.path().into()), [2; 32])),
            Ok(Origin::Replaced)
        );
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn bytes_are_those_of_the_digest_and_never_precompiled() {
        let engine = Engines::new(2).unwrap().of(Default::default()).unwrap();
        let compiler = Compiler::new(None, [0; 32]);
        let other = compiler
            .load(&engine, Digest::of(b"x"), || Ok(b"y".to_vec()))
            .unwrap_err();
        assert_eq!(other.reason, Reason::HostFault);
        let code = engine
            .precompile_component(&wat::parse_str(COMPONENT).unwrap())
            .unwrap();
        let refused = compiler
            .load(&engine, Digest::of(&code), || Ok(code.clone()))
            .unwrap_err();
        assert_eq!(refused.reason, Reason::NotAComponent);
        assert_eq!(
            compiler.load(&engine, Digest::of(b"x"), never).unwrap_err().reason,
            Reason::NotFound
        );
    }
}
