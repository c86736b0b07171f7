//! What a file is, before anything is compiled: a component or not, what it exports and imports, whether it carries a manifest, and whether
//! it stays below the ceilings that keep compilation bounded. Knows only the binary format; nothing here is executed or compiled.

use std::collections::BTreeSet;

use skep_rules::{
    grant,
    id::Digest,
    limits::{
        MAX_BRANCH_TARGETS, MAX_COMPONENT_BYTES, MAX_FUNCTION_BYTES, MAX_FUNCTIONS, MAX_INSTANCES, MAX_LOCALS,
        MAX_MANIFEST_BYTES, MAX_MODULES, MAX_NESTED_COMPONENTS, MAX_NESTING, MAX_SEGMENTS, Tier,
    },
    manifest::{self, Manifest},
    reason::Reason,
    seam::Export,
};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

pub use skep_rules::grant::Refused;

use crate::escape::escape;

/// The custom section that holds the manifest, as the text of `skep.toml`.
pub const MANIFEST_SECTION: &str = "skep:manifest";

/// The interfaces of `skep:agent` that a component may import; the version is 0.1.
const OURS: &[&str] = &["types", "log", "heartbeat", "context", "artifacts"];
/// The packages of WASI 0.2 that are linked for every component, because standard libraries import them unasked.
const WASI: &[&str] = &["cli", "io", "clocks", "random", "filesystem", "sockets"];

/// An uploadable component: it carries a manifest that it does not contradict and exports something that the host can call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// SHA-256 of the file, its manifest included.
    pub digest: Digest,
    /// Length of the file.
    pub size: u64,
    /// What it says of itself.
    pub manifest: Manifest,
    /// What the host can call.
    pub exports: BTreeSet<Export>,
    /// What it imports, with versions, in the order of the file.
    pub imports: Vec<String>,
}

/// What a component is, whether or not it is a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Length of the file.
    pub size: u64,
    /// The embedded manifest, if there is one.
    pub manifest: Option<Manifest>,
    /// What the host can call; empty for a component that is not an agent.
    pub exports: BTreeSet<Export>,
    /// What it imports, with versions, in the order of the file.
    pub imports: Vec<String>,
}

/// Reads a plugin.
///
/// # Errors
/// Everything that [`scan`] refuses, and: no manifest, nothing exported that the host could call, an import that the manifest does not want.
pub fn read(bytes: &[u8]) -> Result<Plugin, Refused> {
    let scan = scan(bytes)?;
    let Some(manifest) = scan.manifest else {
        return Err(refuse(
            Reason::InvalidManifest,
            format!(
                "the component has no `{MANIFEST_SECTION}` section; build it with `skep build`, which embeds skep.toml"
            ),
        ));
    };
    if scan.exports.is_empty() {
        return Err(refuse(
            Reason::NotAComponent,
            "the component exports none of skep:agent/executor, skep:agent/planner and skep:agent/checker (version 0.1), so there is nothing to \
             call; export one of them, for example with `skep_sdk::executor!`",
        ));
    }
    grant::agrees(scan.imports.iter().map(String::as_str), &manifest)?;
    Ok(Plugin {
        digest: scan.digest,
        size: scan.size,
        manifest,
        exports: scan.exports,
        imports: scan.imports,
    })
}

/// Reads a component, with or without a manifest, and validates it against the features of the engine.
///
/// # Errors
/// When it is not a component in binary form, passes a ceiling of [`skep_rules::limits`], is not valid, imports what no host offers, or carries
/// a manifest that is nested, doubled or does not parse. The message names the place and what would help.
pub fn scan(bytes: &[u8]) -> Result<Scan, Refused> {
    check_form(bytes)?;
    let mut walk = Walk::default();
    for payload in Parser::new(0).parse_all(bytes) {
        walk.payload(&payload.map_err(malformed)?)
            .map_err(|error| match error {
                Stop::Malformed(error) => malformed(error),
                Stop::Refused(refused) => refused,
            })?;
    }
    Validator::new_with_features(features())
        .validate_all(bytes)
        .map_err(malformed)?;
    let manifest = match walk.manifest {
        Some(data) => Some(read_manifest(data)?),
        None => None,
    };
    Ok(Scan {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        manifest,
        exports: walk.exports,
        imports: walk.imports,
    })
}

/// Puts a manifest into a component, and the standard metadata sections beside it where the component has none: `version`, `licenses`,
/// `description` and the component's name. The result is what is uploaded and signed.
///
/// # Errors
/// Everything that [`scan`] refuses; a component that carries a manifest already; a manifest that does not want what the component imports.
pub fn embed(component: &[u8], manifest: &Manifest) -> Result<Vec<u8>, Refused> {
    let scan = scan(component)?;
    if scan.manifest.is_some() {
        return Err(refuse(
            Reason::InvalidManifest,
            format!(
                "the component has a `{MANIFEST_SECTION}` section already; embed into the file that the compiler made"
            ),
        ));
    }
    grant::agrees(scan.imports.iter().map(String::as_str), manifest)?;
    let present = metadata(component);
    let mut file = component.to_vec();
    let about = &manifest.plugin;
    let version = about.version.to_string();
    let sections = [
        ("version", version.as_str()),
        ("licenses", about.license.as_str()),
        ("description", about.description.as_str()),
    ];
    for (name, text) in sections {
        if !text.is_empty() && !present.contains(name) {
            append(&mut file, name, text.as_bytes());
        }
    }
    if !present.contains("component-name") {
        let mut names = wasm_encoder::ComponentNameSection::new();
        names.component(about.name.as_str());
        wasm_encoder::ComponentSection::append_to_component(&names, &mut file);
    }
    append(&mut file, MANIFEST_SECTION, manifest.to_toml().as_bytes());
    read(&file)?;
    Ok(file)
}

/// The features that the engine compiles, as the validator names them.
#[must_use]
pub(crate) fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::FLOATS
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::COMPONENT_MODEL
}

fn refuse(reason: Reason, message: impl Into<String>) -> Refused {
    Refused {
        reason,
        message: message.into(),
    }
}

fn malformed(error: wasmparser::BinaryReaderError) -> Refused {
    let (text, offset) = (escape(error.message().as_bytes(), 256), error.offset());
    refuse(
        Reason::NotAComponent,
        format!(
            "not a valid component: {text} (at byte {offset}); build it for `wasm32-wasip2`, for example with `skep build`"
        ),
    )
}

/// Refuses what people upload by mistake with a message that says what it is, and what is too long to be looked at.
fn check_form(bytes: &[u8]) -> Result<(), Refused> {
    let no = |message: &str| Err(refuse(Reason::NotAComponent, message));
    if bytes.len() as u64 > MAX_COMPONENT_BYTES {
        return Err(refuse(
            Reason::CompileLimit,
            format!(
                "the file has {} bytes; a component holds at most {MAX_COMPONENT_BYTES}",
                bytes.len()
            ),
        ));
    }
    match bytes {
        [] => no("the file is empty; build a component with `skep build`"),
        [0x7f, b'E', b'L', b'F', ..] => no(
            "the file is an ELF image (precompiled or native code), which is never accepted; upload the `.wasm` file itself",
        ),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => no(
            "the file is a core module, not a component; build it for `wasm32-wasip2`, for example with `skep build`",
        ),
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ if is_text(bytes) => {
            no("the file is WebAssembly text (WAT); only the binary form is accepted: `wasm-tools parse` makes it")
        }
        _ => no("the file does not begin like WebAssembly; build a component with `skep build`"),
    }
}

/// WAT begins, after white space, with a form or a comment.
fn is_text(bytes: &[u8]) -> bool {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'(' | b';'))
}

fn read_manifest(data: &[u8]) -> Result<Manifest, Refused> {
    let bad = |message: String| refuse(Reason::InvalidManifest, format!("the embedded manifest: {message}"));
    if data.len() > MAX_MANIFEST_BYTES {
        return Err(bad(manifest::Error::TooLong(data.len()).to_string()));
    }
    let text = std::str::from_utf8(data).map_err(|_| bad("it is not UTF-8".into()))?;
    Manifest::parse(text).map_err(|error| bad(error.to_string()))
}

fn append(file: &mut Vec<u8>, name: &str, data: &[u8]) {
    let section = wasm_encoder::CustomSection {
        name: name.into(),
        data: data.into(),
    };
    wasm_encoder::ComponentSection::append_to_component(&section, file);
}

/// The names of the custom sections at the top of a component that was scanned before.
fn metadata(bytes: &[u8]) -> BTreeSet<String> {
    let mut depth = 0_u32;
    let mut found = BTreeSet::new();
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 1 => {
                found.insert(section.name().to_owned());
            }
            _ => {}
        }
    }
    found
}

/// Why the walk ended early.
enum Stop {
    Malformed(wasmparser::BinaryReaderError),
    Refused(Refused),
}

impl From<wasmparser::BinaryReaderError> for Stop {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Stop::Malformed(error)
    }
}

/// One pass over the file: counts against the ceilings, and the names at the top.
#[derive(Default)]
struct Walk<'a> {
    depth: u32,
    modules: u32,
    components: u32,
    instances: u32,
    functions: u32,
    segments: u32,
    manifest: Option<&'a [u8]>,
    exports: BTreeSet<Export>,
    imports: Vec<String>,
}

impl<'a> Walk<'a> {
    fn payload(&mut self, payload: &Payload<'a>) -> Result<(), Stop> {
        match payload {
            Payload::Version { encoding, .. } => self.open(*encoding),
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    let makes = matches!(instance?, wasmparser::Instance::Instantiate { .. });
                    self.instances += u32::from(makes);
                }
                ceiling(self.instances, MAX_INSTANCES, "instances")
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    let makes = matches!(instance?, wasmparser::ComponentInstance::Instantiate { .. });
                    self.instances += u32::from(makes);
                }
                ceiling(self.instances, MAX_INSTANCES, "instances")
            }
            Payload::FunctionSection(section) => {
                self.functions = self.functions.saturating_add(section.count());
                ceiling(self.functions, MAX_FUNCTIONS, "functions")
            }
            Payload::DataSection(section) => self.segments(section.count()),
            Payload::ElementSection(section) => self.segments(section.count()),
            Payload::MemorySection(section) => memories(section.clone()),
            Payload::TableSection(section) => tables(section.clone()),
            Payload::CodeSectionEntry(body) => function(body),
            Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => self.manifest(section.data()),
            Payload::ComponentImportSection(section) if self.depth == 1 => {
                for import in section.clone() {
                    self.import(&import?)?;
                }
                Ok(())
            }
            Payload::ComponentExportSection(section) if self.depth == 1 => {
                for export in section.clone() {
                    let export = export?;
                    let instance = export.kind == wasmparser::ComponentExternalKind::Instance;
                    self.exports
                        .extend(instance.then(|| exported(export.name.name)).flatten());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, encoding: Encoding) -> Result<(), Stop> {
        match encoding {
            Encoding::Module => self.modules += 1,
            Encoding::Component if self.depth > 0 => self.components += 1,
            Encoding::Component => {}
        }
        self.depth += 1;
        // The component itself and a module inside it are not nesting.
        ceiling(self.depth.saturating_sub(2), MAX_NESTING, "levels of nesting")?;
        ceiling(self.modules, MAX_MODULES, "core modules")?;
        ceiling(self.components, MAX_NESTED_COMPONENTS, "nested components")
    }

    fn segments(&mut self, more: u32) -> Result<(), Stop> {
        self.segments = self.segments.saturating_add(more);
        ceiling(self.segments, MAX_SEGMENTS, "data and element segments")
    }

    fn manifest(&mut self, data: &'a [u8]) -> Result<(), Stop> {
        let place = if self.depth == 1 {
            match self.manifest.replace(data) {
                None => return Ok(()),
                Some(_) => "is there twice",
            }
        } else {
            "is inside a nested module or component"
        };
        Err(Stop::Refused(refuse(
            Reason::InvalidManifest,
            format!(
                "the section `{MANIFEST_SECTION}` {place}; a plugin has exactly one, at its top, as `skep build` embeds it"
            ),
        )))
    }

    fn import(&mut self, import: &wasmparser::ComponentImport<'_>) -> Result<(), Stop> {
        let name = import.name.name;
        let instance = matches!(import.ty, wasmparser::ComponentTypeRef::Instance(_));
        // `implements` would let a plain name stand for an interface that the gate looks for by name.
        if !instance || import.name.implements.is_some() || !offered(name) {
            let shown = escape(name.as_bytes(), 128);
            return Err(Stop::Refused(refuse(
                Reason::UnsupportedImport,
                format!(
                    "the component imports `{shown}`, which this host does not offer; it offers skep:agent/{{{}}}@0.1 and wasi:{{{}}}@0.2",
                    OURS.join(","),
                    WASI.join(",")
                ),
            )));
        }
        self.imports.push(name.to_owned());
        Ok(())
    }
}

fn ceiling(count: u32, most: u32, what: &str) -> Result<(), Stop> {
    if count <= most {
        return Ok(());
    }
    Err(Stop::Refused(refuse(
        Reason::CompileLimit,
        format!("the component has more than {most} {what}; build it smaller, or split it in two plugins"),
    )))
}

/// Splits `wasi:io/poll@0.2.6` into its package, interface and version.
fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let (package, rest) = name.split_once('/')?;
    let (interface, version) = rest.split_once('@')?;
    Some((package, interface, version))
}

fn offered(name: &str) -> bool {
    let Some((package, interface, version)) = parts(name) else {
        return false;
    };
    match package.split_once(':') {
        Some(("skep", "agent")) => version.starts_with("0.1.") && OURS.contains(&interface),
        Some(("wasi", package)) => version.starts_with("0.2.") && WASI.contains(&package),
        _ => false,
    }
}

fn exported(name: &str) -> Option<Export> {
    let (interface, version) = name.split_once('@')?;
    let found = Export::ALL.iter().find(|export| export.interface() == interface);
    found.copied().filter(|_| version.starts_with("0.1."))
}

/// A memory that no tier could hold is refused before anything is compiled.
fn memories(section: wasmparser::MemorySectionReader<'_>) -> Result<(), Stop> {
    let most = Tier::Large.limits().memory;
    for memory in section {
        let pages = memory?.initial;
        if pages.saturating_mul(1 << 16) > most.0 {
            return Err(Stop::Refused(refuse(
                Reason::MemoryLimit,
                format!("the component declares a memory of {pages} pages; the largest tier has {most}"),
            )));
        }
    }
    Ok(())
}

fn tables(section: wasmparser::TableSectionReader<'_>) -> Result<(), Stop> {
    let most = Tier::Large.limits().table_elements;
    for table in section {
        let elements = table?.ty.initial;
        if elements > most {
            return Err(Stop::Refused(refuse(
                Reason::MemoryLimit,
                format!("the component declares a table of {elements} elements; the largest tier has {most}"),
            )));
        }
    }
    Ok(())
}

/// The three shapes of function whose compilation costs more than their size lets expect.
fn function(body: &wasmparser::FunctionBody<'_>) -> Result<(), Stop> {
    let at = body.range().start;
    let stop = |message: String| {
        let message = format!("the function at byte {at} {message}; split it in smaller ones");
        Err(Stop::Refused(refuse(Reason::CompileLimit, message)))
    };
    if body.range().len() > MAX_FUNCTION_BYTES {
        return stop(format!(
            "has {} bytes, more than {MAX_FUNCTION_BYTES}",
            body.range().len()
        ));
    }
    let mut locals = 0_u32;
    for group in body.get_locals_reader()? {
        locals = locals.saturating_add(group?.0);
    }
    if locals > MAX_LOCALS {
        return stop(format!("has {locals} locals, more than {MAX_LOCALS}"));
    }
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        if let wasmparser::Operator::BrTable { targets } = operators.read()?
            && targets.len() > MAX_BRANCH_TARGETS
        {
            return stop(format!(
                "has a branch table of {} targets, more than {MAX_BRANCH_TARGETS}",
                targets.len()
            ));
        }
    }
    Ok(())
}
