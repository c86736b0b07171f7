//! From the bytes of a component to code that can be instantiated, and the cache of such code on disk. Compiling is done by a process that is bound
//! hand and foot, never by the host's own engines. A file of the cache is believed only when it carries the tag that this host's own key makes over
//! it: compiled code runs without further checks.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use skep_rules::{id::Digest, limits::MAX_CODE_BYTES, reason::Reason};
use wasmtime::{Engine, component::Component};

use crate::{
    Error,
    engine::{Pool, Profile},
    escape::escape,
    plugin::Refused,
};

mod child;
mod confine;
mod parent;

pub use child::{Job, child};
pub use confine::Confinement;

/// Length of the tag at the head of a file.
const TAG: usize = 32;
/// How the names of the cache's files end.
const SUFFIX: &str = ".code";

/// What turns components into code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// A process per component: 20 s of processor time, a minute in all, 1.5 GiB of memory, no files, no network. The program must be this project's,
    /// and hand the verb `compile-component` to [`compiler_process`](crate::compiler_process).
    Child {
        /// Mostly `/proc/self/exe`: the running program, also when its file has been replaced.
        program: PathBuf,
    },
    /// This process, without any limit: for measurements and unit tests of components that are known, only.
    InProcess,
}

impl Compiler {
    /// Compiles an empty component, to see that it can be done and how well the compiler is confined; `None` where it is not a process.
    ///
    /// # Errors
    /// When the compiler cannot be started or fails, with the reason `host-fault` or `compile-limit`.
    pub fn try_out(&self) -> Result<Option<Confinement>, Refused> {
        let failed = |error: String| refuse(Reason::HostFault, format!("the compiler cannot be tried: {error}"));
        let profile = Profile::default();
        let print = profile.print().map_err(|error| failed(error.to_string()))?;
        let output = tempfile::tempfile().map_err(|error| failed(error.to_string()))?;
        self.run(profile, &print, b"\0asm\x0d\0\x01\0", &output)
    }

    /// Writes the code of a component to where `output` stands.
    fn run(
        &self,
        profile: Profile,
        print: &[u8; 32],
        bytes: &[u8],
        mut output: &File,
    ) -> Result<Option<Confinement>, Refused> {
        match self {
            Compiler::Child { program } => parent::compile(program, profile, print, bytes, output).map(Some),
            Compiler::InProcess => {
                let engine = profile
                    .compiler()
                    .map_err(|error| refuse(Reason::HostFault, error.to_string()))?;
                let code = engine.precompile_component(bytes).map_err(|error| {
                    let text = escape(format!("{:#}", error.root_cause()).as_bytes(), 512);
                    refuse(Reason::CompileLimit, format!("the component does not compile: {text}"))
                })?;
                output.write_all(&code).map_err(|error| unwritable(&error))?;
                Ok(None)
            }
        }
    }
}

/// The directory of compiled code.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    compiler: Compiler,
}

/// What is in the cache for a component.
pub(crate) enum Found {
    Code(Component),
    Nothing,
    /// Something that is not this host's own work: what is wrong with it.
    Foreign(String),
    /// This host's own work, which the engine does not take: it declares more than the engine's pool holds.
    Unfit(String),
}

impl Cache {
    /// Keeps files in `dir`, authenticated under `key`. What a host that was killed left half written there is removed.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub(crate) fn open(dir: PathBuf, key: [u8; 32], compiler: Compiler) -> Result<Self, Error> {
        let tidy = || -> io::Result<()> {
            std::fs::create_dir_all(&dir)?;
            for entry in std::fs::read_dir(&dir)? {
                let entry = entry?;
                if !entry.file_name().as_encoded_bytes().ends_with(SUFFIX.as_bytes()) && entry.file_type()?.is_file() {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        match tidy() {
            Ok(()) => Ok(Cache { dir, key, compiler }),
            Err(source) => Err(Error::Directory { path: dir, source }),
        }
    }

    /// Looks for the code of a component. Takes milliseconds, of reading.
    pub(crate) fn find(&self, pool: &Pool, digest: Digest) -> Found {
        self.read(pool, digest).unwrap_or_else(Found::Foreign)
    }

    /// Compiles a component and keeps its code. Takes seconds for large components, and blocks.
    ///
    /// # Errors
    /// When the bytes are not those of the digest, do not compile within the compiler's limits, or the code cannot be written.
    pub(crate) fn compile(&self, pool: &Pool, digest: Digest, bytes: &[u8]) -> Result<Component, Refused> {
        if Digest::of(bytes) != digest {
            let message = format!("the bytes of component {} are not those of its digest", digest.short());
            return Err(refuse(Reason::HostFault, message));
        }
        if Engine::detect_precompiled(bytes).is_some() {
            let message = "the file is precompiled code, which is never accepted; upload the `.wasm` file itself";
            return Err(refuse(Reason::NotAComponent, message));
        }
        let mut fresh = tempfile::NamedTempFile::new_in(&self.dir).map_err(|error| unwritable(&error))?;
        let file = fresh.as_file_mut();
        file.seek(SeekFrom::Start(TAG as u64))
            .map_err(|error| unwritable(&error))?;
        let confinement = self.compiler.run(pool.profile, &pool.print, bytes, file)?;
        tracing::debug!(component = %digest.short(), ?confinement, "component compiled");
        // The compiler is gone: nobody else can write to the file any more.
        self.seal(file, pool, digest).map_err(|error| unwritable(&error))?;
        fresh
            .persist(self.path(pool, digest))
            .map_err(|error| unwritable(&error.error))?;
        match self.find(pool, digest) {
            Found::Code(component) => Ok(component),
            Found::Nothing => Err(refuse(Reason::HostFault, "the compiled code has gone from the cache")),
            Found::Foreign(why) | Found::Unfit(why) => {
                self.remove(pool, digest);
                let why = escape(why.as_bytes(), 512);
                Err(refuse(
                    Reason::HostFault,
                    format!("compiled code cannot be loaded: {why}"),
                ))
            }
        }
    }

    /// Removes the code of a component, if it is there.
    pub(crate) fn remove(&self, pool: &Pool, digest: Digest) {
        let path = self.path(pool, digest);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %path.display(), %error, "cannot remove a file of the code cache"),
        }
    }

    fn path(&self, pool: &Pool, digest: Digest) -> PathBuf {
        let print = blake3::Hash::from_bytes(pool.print).to_hex();
        let print = print.get(..16).unwrap_or_default();
        self.dir.join(format!("{digest}-{print}{SUFFIX}"))
    }

    fn read(&self, pool: &Pool, digest: Digest) -> Result<Found, String> {
        let unreadable = |error: io::Error| format!("it cannot be read: {error}");
        let file = match File::open(self.path(pool, digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(unreadable(error)),
        };
        let length = file.metadata().map_err(unreadable)?.len();
        if length > MAX_CODE_BYTES {
            return Err("it is longer than any code".into());
        }
        // Into memory, not mapped: what was checked is what is loaded, whoever writes to the file meanwhile.
        let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.take(MAX_CODE_BYTES)
            .read_to_end(&mut content)
            .map_err(unreadable)?;
        let (tag, code) = content.split_first_chunk::<TAG>().ok_or("it is cut short")?;
        let mut wanted = self.tag(pool, digest);
        wanted.update(code);
        // The comparison of two `blake3::Hash` takes the same time wherever they differ.
        if blake3::Hash::from_bytes(*tag) != wanted.finalize() {
            return Err("its tag is not of this host's key: changed, foreign or damaged".into());
        }
        Ok(match deserialize(&pool.engine, code) {
            Ok(component) => Found::Code(component),
            Err(error) => Found::Unfit(error.root_cause().to_string()),
        })
    }

    /// Writes the tag before the code that a compiler wrote, and makes both durable: a file that a power cut left half written would look like one
    /// that somebody changed.
    fn seal(&self, file: &mut File, pool: &Pool, digest: Digest) -> io::Result<()> {
        file.seek(SeekFrom::Start(TAG as u64))?;
        let mut tag = self.tag(pool, digest);
        tag.update_reader(&*file)?;
        file.write_all_at(tag.finalize().as_bytes(), 0)?;
        file.sync_data()
    }

    /// Covers everything that decides whether the code may run here: whose it is, how it was compiled (wasmtime's version included) and, once the
    /// code is added, each byte.
    fn tag(&self, pool: &Pool, digest: Digest) -> blake3::Hasher {
        let mut tag = blake3::Hasher::new_keyed(&self.key);
        tag.update(b"skep code 2").update(digest.as_bytes()).update(&pool.print);
        tag
    }
}

fn refuse(reason: Reason, message: impl Into<String>) -> Refused {
    Refused {
        reason,
        message: message.into(),
    }
}

fn unwritable(error: &io::Error) -> Refused {
    refuse(
        Reason::HostFault,
        format!("compiled code cannot be kept: {error}; see that the data directory has room"),
    )
}

fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the code was made by `precompile_component` in a compiler of this host: its keyed tag over component, configuration and every byte was
    // compared just before.
    #[expect(unsafe_code, reason = "wasmtime cannot check compiled code; the tag does")]
    unsafe {
        Component::deserialize(engine, code)
    }
}

#[cfg(test)]
mod tests {
    use skep_rules::limits::Tier;

    use super::*;
    use crate::engine::Engines;

    const COMPONENT: &str =
        r#"(component (core module $m (func (export "f") (result i32) i32.const 7)) (core instance (instantiate $m)))"#;

    fn pool() -> Pool {
        Engines::new(2).unwrap().of(Tier::default()).unwrap()
    }

    fn cache(dir: &std::path::Path, key: u8) -> Cache {
        Cache::open(dir.into(), [key; 32], Compiler::InProcess).unwrap()
    }

    fn foreign(found: Found) -> Option<String> {
        match found {
            Found::Foreign(why) => Some(why),
            Found::Code(_) | Found::Nothing | Found::Unfit(_) => None,
        }
    }

    #[test]
    fn the_cache_believes_only_its_own_files() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool();
        let bytes = wat::parse_str(COMPONENT).unwrap();
        let digest = Digest::of(&bytes);
        let own = cache(dir.path(), 1);
        assert!(matches!(own.find(&pool, digest), Found::Nothing));
        own.compile(&pool, digest, &bytes).unwrap();
        assert!(matches!(own.find(&pool, digest), Found::Code(_)));
        let other = foreign(cache(dir.path(), 2).find(&pool, digest)).unwrap();
        assert!(other.contains("not of this host's key"), "{other}");

        let file = own.path(&pool, digest);
        let good = std::fs::read(&file).unwrap();
        for at in [0, TAG, good.len() / 2, good.len() - 1] {
            let mut changed = good.clone();
            changed[at] ^= 1;
            std::fs::write(&file, changed).unwrap();
            assert!(foreign(own.find(&pool, digest)).is_some(), "byte {at}");
        }
        for cut in [0, TAG - 1, TAG, good.len() - 1] {
            std::fs::write(&file, &good[..cut]).unwrap();
            assert!(foreign(own.find(&pool, digest)).is_some(), "cut at {cut}");
        }
        // The code of one component under the name of another.
        let other = Digest::of(b"another");
        std::fs::write(own.path(&pool, other), &good).unwrap();
        assert!(foreign(own.find(&pool, other)).is_some());

        own.compile(&pool, digest, &bytes).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), good, "compiling is deterministic");
        own.remove(&pool, digest);
        own.remove(&pool, digest);
        assert!(matches!(own.find(&pool, digest), Found::Nothing));
    }

    #[test]
    fn what_a_killed_host_left_half_written_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool();
        let bytes = wat::parse_str(COMPONENT).unwrap();
        let digest = Digest::of(&bytes);
        cache(dir.path(), 1).compile(&pool, digest, &bytes).unwrap();
        std::fs::write(dir.path().join(".tmpAbc123"), "half").unwrap();
        let again = cache(dir.path(), 1);
        assert!(matches!(again.find(&pool, digest), Found::Code(_)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn bytes_are_those_of_the_digest_and_never_precompiled() {
        let dir = tempfile::tempdir().unwrap();
        let (pool, cache) = (pool(), cache(dir.path(), 0));
        let refused = |digest, bytes: &[u8]| cache.compile(&pool, digest, bytes).err().map(|refused| refused.reason);
        assert_eq!(refused(Digest::of(b"x"), b"y"), Some(Reason::HostFault));
        let compiler = pool.profile.compiler().unwrap();
        let code = compiler
            .precompile_component(&wat::parse_str(COMPONENT).unwrap())
            .unwrap();
        assert_eq!(refused(Digest::of(&code), &code), Some(Reason::NotAComponent));
        let half = &code[..code.len() / 2];
        assert_eq!(refused(Digest::of(half), half), Some(Reason::CompileLimit));
        assert_eq!(refused(Digest::of(b"x"), b"x"), Some(Reason::CompileLimit));
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nothing stays of what was refused"
        );
    }
}
