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
const OURS: &[&str] = &[
    "types",
    "log",
    "heartbeat",
    "context",
    "artifacts",
    "state",
    "tasks",
    "messages",
];
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
    /// Every interface that it exports, with versions, also those that the host does not call.
    pub interfaces: BTreeSet<String>,
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
    let (scan, interfaces) = walk(bytes)?;
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
            "the component exports none of skep:agent/executor, skep:agent/planner, skep:agent/sequencer, skep:agent/checker and skep:agent/mailbox (version 0.1), so there is nothing to \
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
        interfaces,
    })
}

/// Reads a component, with or without a manifest, and validates it against the features of the engine.
///
/// # Errors
/// When it is not a component in binary form, passes a ceiling of [`skep_rules::limits`], is not valid, imports what no host offers, or carries
/// a manifest that is nested, doubled or does not parse. The message names the place and what would help.
pub fn scan(bytes: &[u8]) -> Result<Scan, Refused> {
    walk(bytes).map(|(scan, _)| scan)
}

/// What a component is, and every interface that it exports.
fn walk(bytes: &[u8]) -> Result<(Scan, BTreeSet<String>), Refused> {
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
    let scan = Scan {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        manifest,
        exports: walk.exports,
        imports: walk.imports,
    };
    Ok((scan, walk.interfaces))
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

pub(crate) fn refuse(reason: Reason, message: impl Into<String>) -> Refused {
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
    interfaces: BTreeSet<String>,
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
                    if export.kind == wasmparser::ComponentExternalKind::Instance {
                        self.exports.extend(exported(export.name.name));
                        self.interfaces.insert(export.name.name.to_owned());
                    }
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
                Reason::CompileLimit,
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
                Reason::CompileLimit,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::agent;

    const MANIFEST: &str = "[plugin]\nname = \"acme/worker\"\nversion = \"1.2.3\"\nlicense = \"MIT\"\n";

    fn manifest(wants: &str) -> Manifest {
        Manifest::parse(&format!("{MANIFEST}[wants]\n{wants}")).unwrap()
    }

    fn component(body: &str) -> Vec<u8> {
        wat::parse_str(format!("(component {body})")).unwrap()
    }

    fn with_section(mut file: Vec<u8>, data: &[u8]) -> Vec<u8> {
        append(&mut file, MANIFEST_SECTION, data);
        file
    }

    #[track_caller]
    fn refused(bytes: &[u8], reason: Reason, says: &str) {
        let refused = scan(bytes).unwrap_err();
        assert!(
            refused.reason == reason && refused.message.contains(says),
            "{refused:?}"
        );
    }

    #[test]
    fn what_is_not_a_component_is_called_what_it_is() {
        let good = component("");
        refused(b"", Reason::NotAComponent, "empty");
        refused(b"  (component)", Reason::NotAComponent, "WAT");
        refused(b"\x7fELF\x02\x01", Reason::NotAComponent, "ELF");
        refused(b"PK\x03\x04", Reason::NotAComponent, "does not begin like WebAssembly");
        refused(
            &wat::parse_str("(module)").unwrap(),
            Reason::NotAComponent,
            "core module",
        );
        refused(
            &agent("unreachable")[..500],
            Reason::NotAComponent,
            "not a valid component",
        );
        refused(&good[..6], Reason::NotAComponent, "not a valid component");
        refused(
            &vec![0; usize::try_from(MAX_COMPONENT_BYTES).unwrap() + 1],
            Reason::CompileLimit,
            "at most",
        );
        assert!(scan(&good).unwrap().exports.is_empty());
    }

    #[test]
    fn only_what_is_offered_may_be_imported() {
        for name in [
            "wasi:http/outgoing-handler@0.2.6",
            "wasi:io/poll@0.3.0",
            "wasi:io/poll",
            "skep:agent/secrets@0.1.0",
            "skep:agent/log@0.2.0",
            "acme:tools/shell@1.0.0",
            "plain-name",
        ] {
            refused(
                &component(&format!("(import \"{name}\" (instance))")),
                Reason::UnsupportedImport,
                name,
            );
        }
        refused(&component("(import \"f\" (func))"), Reason::UnsupportedImport, "`f`");
        let names = ["wasi:io/poll@0.2.6", "wasi:sockets/tcp@0.2.12", "skep:agent/log@0.1.7"];
        let imports: String = names
            .iter()
            .map(|name| format!("(import \"{name}\" (instance))"))
            .collect();
        assert_eq!(scan(&component(&imports)).unwrap().imports, names);
    }

    #[test]
    fn every_ceiling_is_named() {
        let nest = |levels: usize| format!("{}{}", "(component ".repeat(levels), ")".repeat(levels));
        let function = |body: &str| component(&format!("(core module (func {body}))"));
        let cases = [
            ("(core module)".repeat(33), "core modules"),
            ("(component)".repeat(9), "nested components"),
            (nest(6), "levels of nesting"),
            (
                format!("(core module $m){}", "(core instance (instantiate $m))".repeat(65)),
                "instances",
            ),
            (format!("(core module {})", "(func)".repeat(50_001)), "functions"),
            (
                format!("(core module (memory 1) {})", "(data \"\")".repeat(10_001)),
                "segments",
            ),
        ];
        for (body, says) in cases {
            refused(&component(&body), Reason::CompileLimit, says);
        }
        refused(&function(&"(local i32)".repeat(2_001)), Reason::CompileLimit, "locals");
        refused(&function(&"nop ".repeat(300_000)), Reason::CompileLimit, "bytes");
        refused(
            &function(&format!("(br_table {} (i32.const 0))", "0 ".repeat(4_099))),
            Reason::CompileLimit,
            "branch table",
        );
        refused(
            &component("(core module (memory 8193))"),
            Reason::CompileLimit,
            "8193 pages",
        );
        refused(
            &component("(core module (table 80001 funcref))"),
            Reason::CompileLimit,
            "80001 elements",
        );
        assert!(scan(&component("(core module (memory 8192) (table 80000 funcref))")).is_ok());
    }

    #[test]
    fn features_that_the_engine_lacks_are_refused() {
        for body in [
            "(memory i64 1)",
            "(memory 1 1 shared)",
            "(tag)",
            "(type (struct))",
            "(func (param (ref func)))",
            "(func (result v128) v128.const i32x4 0 0 0 0 v128.const i32x4 0 0 0 0 i8x16.relaxed_swizzle)",
        ] {
            refused(&component(&format!("(core module {body})")), Reason::NotAComponent, "");
        }
    }

    #[test]
    fn a_plugin_has_exactly_one_manifest_at_its_top() {
        let bare = agent("unreachable");
        assert_eq!(read(&bare).unwrap_err().reason, Reason::InvalidManifest);
        let once = with_section(bare.clone(), MANIFEST.as_bytes());
        assert_eq!(read(&once).unwrap().exports, [Export::Executor].into());
        refused(
            &with_section(once, MANIFEST.as_bytes()),
            Reason::InvalidManifest,
            "twice",
        );
        let nested = component(&format!("(core module (@custom \"{MANIFEST_SECTION}\" \"x\"))"));
        refused(&nested, Reason::InvalidManifest, "nested");
        refused(&with_section(bare.clone(), b"\xff"), Reason::InvalidManifest, "UTF-8");
        refused(
            &with_section(bare.clone(), b"[plugin]\nnam = 1"),
            Reason::InvalidManifest,
            "manifest",
        );
        refused(
            &with_section(bare, &vec![b'#'; MAX_MANIFEST_BYTES + 1]),
            Reason::InvalidManifest,
            "at most",
        );
    }

    #[test]
    fn embedding_makes_a_plugin_once() {
        let bare = agent("(drop (call $beat (i32.const 0) (i32.const 0))) unreachable");
        let file = embed(&bare, &manifest("")).unwrap();
        let plugin = read(&file).unwrap();
        assert_eq!((plugin.manifest, plugin.size), (manifest(""), file.len() as u64));
        assert!(plugin.imports.contains(&"skep:agent/heartbeat@0.1.0".to_owned()));
        let sections = metadata(&file);
        for name in ["version", "licenses", "component-name", MANIFEST_SECTION] {
            assert!(sections.contains(name), "{name}");
        }
        assert!(!sections.contains("description"), "an empty one is left out");
        assert_eq!(embed(&file, &manifest("")).unwrap_err().reason, Reason::InvalidManifest);
    }

    #[test]
    fn a_manifest_covers_what_the_component_imports() {
        let reads =
            agent("(call $read (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0)) unreachable");
        let refused = embed(&reads, &manifest("")).unwrap_err();
        assert!(
            refused.reason == Reason::InvalidManifest && refused.message.contains("artifacts"),
            "{refused:?}"
        );
        assert!(embed(&reads, &manifest("artifacts = \"1MiB\"")).is_ok());
    }

    #[test]
    fn a_component_that_offers_nothing_is_no_plugin() {
        let file = with_section(component(""), MANIFEST.as_bytes());
        let refused = read(&file).unwrap_err();
        assert!(
            refused.reason == Reason::NotAComponent && refused.message.contains("executor"),
            "{refused:?}"
        );
    }
}
