//! Compiling as uploads cause it: a process per component, confined, cold; and what components do that are made to be dear to compile.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use skep_built_guests::FIGURES;
use skep_rules::{
    id::Digest,
    limits::Tier,
    seam::{HostCall, HostReply, RunnerEvent},
};
use skep_runtime::{Compiler, Host, Options, Runner, plugin};

use crate::{percentiles, round, time};

#[path = "../bombs/shapes.rs"]
mod shapes;

use shapes::Shape;

/// Nothing is asked of it: uploads bring their bytes.
struct Nobody;

impl Host for Nobody {
    fn event(&self, _: RunnerEvent) {}

    fn component(&self, _: Digest) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }

    fn step(&self, _: skep_rules::seam::Lease, _: u64, _: skep_rules::step::StepCall) -> skep_rules::seam::StepReply {
        skep_rules::seam::StepReply::Fenced
    }

    fn record(
        &self,
        _: skep_rules::seam::Lease,
        _: u64,
    ) -> Result<Vec<skep_rules::step::Recorded>, skep_rules::reason::Reason> {
        Err(skep_rules::reason::Reason::Fenced)
    }

    fn call(&self, _: HostCall) -> std::pin::Pin<Box<dyn Future<Output = HostReply> + Send>> {
        Box::pin(std::future::pending())
    }
}

/// The smallest of the plugins that come with the program.
fn echo() -> &'static [u8] {
    skep_bundled::get("echo").expect("it comes with the program").component
}

/// A runner that compiles as a host does, and the directory that it works in.
fn runner() -> (Arc<Runner>, tempfile::TempDir) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory can be made");
    let options = Options {
        compiler: Compiler::Child {
            program: PathBuf::from(env!("CARGO_BIN_EXE_skep")),
        },
        cache_dir: directory.path().join("cache"),
        cache_key: [0; 32],
        workspaces: directory.path().join("workspaces"),
        slots: 8,
        memory: None,
        guest_threads: 2,
    };
    (
        Runner::start(options, Arc::new(Nobody)).expect("the runner starts"),
        directory,
    )
}

/// An upload of a publisher as far as the runner has to do with it: pre-scan, compile. The reason code of a refusal.
fn upload(runner: &Runner, publisher: &str, bytes: &[u8]) -> Option<String> {
    let compiled = plugin::scan(bytes).and_then(|scan| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime can be made");
        runtime.block_on(runner.compile(publisher, Tier::Medium, scan.digest, bytes.to_vec()))
    });
    compiled.err().map(|refused| refused.reason.to_string())
}

/// The same component under another digest: with a custom section that says which.
fn another(component: &[u8], number: u32) -> Vec<u8> {
    let section = wasm_encoder::CustomSection {
        name: "number".into(),
        data: number.to_le_bytes().to_vec().into(),
    };
    let mut bytes = component.to_vec();
    wasm_encoder::ComponentSection::append_to_component(&section, &mut bytes);
    bytes
}

/// Cold, in the child: code of 17 KB and of 1.5 MB in functions of a usual size, and two real guests between them.
pub(crate) fn compile() -> Vec<Value> {
    let (runner, _directory) = runner();
    let small = Shape::Ifs { bodies: 20, ifs: 50 }.component(1);
    let large = Shape::Ifs { bodies: 1_800, ifs: 50 }.component(1);
    let cases: [(&str, &[u8], u32, Option<f64>); 4] = [
        ("small", &small, 20, Some(150.0)),
        ("echo", echo(), 10, None),
        ("figures", FIGURES, 10, None),
        ("large", &large, 5, Some(3_000.0)),
    ];
    let line = |(name, component, rounds, goal): (&str, &[u8], u32, Option<f64>)| {
        let samples = (0..rounds).map(|round| {
            let bytes = another(component, round);
            let (refused, took) = time(|| upload(&runner, "bench", &bytes));
            assert_eq!(refused, None, "{name}");
            took
        });
        let (p50, p99) = percentiles(samples.collect());
        json!({"case": name, "bytes": component.len(), "p50_ms": round(p50 / 1e3, 1), "p99_ms": round(p99 / 1e3, 1), "goal_p50_ms": goal})
    };
    cases.into_iter().map(line).collect()
}

/// The measured shapes, and what comes closest to them below the ceilings.
const BOMBS: &[(&str, Shape)] = &[
    ("100,000 functions", Shape::Functions(100_000)),
    ("50,000 functions", Shape::Functions(50_000)),
    (
        "500,000 adds in a row",
        Shape::Adds {
            bodies: 1,
            adds: 500_000,
        },
    ),
    (
        "80,000 adds in a row, 60 times",
        Shape::Adds {
            bodies: 60,
            adds: 80_000,
        },
    ),
    ("50,000 ifs in a row", Shape::Ifs { bodies: 1, ifs: 50_000 }),
    (
        "15,000 ifs in a row, 40 times",
        Shape::Ifs {
            bodies: 40,
            ifs: 15_000,
        },
    ),
    (
        "20,000 values live",
        Shape::Live {
            bodies: 1,
            values: 20_000,
        },
    ),
    (
        "28,000 values live",
        Shape::Live {
            bodies: 1,
            values: 28_000,
        },
    ),
    (
        "28,000 values live, 60 times",
        Shape::Live {
            bodies: 60,
            values: 28_000,
        },
    ),
    (
        "40,000 values live",
        Shape::Live {
            bodies: 1,
            values: 40_000,
        },
    ),
    (
        "2,000 locals in 60 loops",
        Shape::Locals {
            bodies: 1,
            locals: 2_000,
            loops: 60,
        },
    ),
    (
        "2,000 locals in 1,000 loops",
        Shape::Locals {
            bodies: 1,
            locals: 2_000,
            loops: 1_000,
        },
    ),
    (
        "2,000 locals in 60 loops, 400 times",
        Shape::Locals {
            bodies: 400,
            locals: 2_000,
            loops: 60,
        },
    ),
    (
        "8,000 locals in 60 loops",
        Shape::Locals {
            bodies: 1,
            locals: 8_000,
            loops: 60,
        },
    ),
    (
        "400 tables of 4,096 targets",
        Shape::Tables {
            bodies: 8,
            tables: 50,
            targets: 4_096,
        },
    ),
    (
        "3,000 tables of 4,096 targets",
        Shape::Tables {
            bodies: 60,
            tables: 50,
            targets: 4_096,
        },
    ),
    (
        "400 tables of 5,000 targets",
        Shape::Tables {
            bodies: 10,
            tables: 40,
            targets: 5_000,
        },
    ),
    (
        "60,000 nested blocks",
        Shape::Blocks {
            blocks: 60_000,
            targets: 4_096,
        },
    ),
];

/// Each of them offered by one publisher while another offers an honest guest again and again.
pub(crate) fn bomb() -> Vec<Value> {
    let (runner, _directory) = runner();
    let mut number = 0;
    let mut lines = Vec::new();
    for (name, shape) in BOMBS {
        let bytes = shape.component(1);
        let before = resident();
        let (mut most, mut others) = (before, Vec::new());
        let (refused, took) = std::thread::scope(|scope| {
            let offered = scope.spawn(|| time(|| upload(&runner, "stranger", &bytes)));
            while !offered.is_finished() {
                number += 1;
                let honest = another(echo(), number);
                let begun = Instant::now();
                assert_eq!(upload(&runner, "honest", &honest), None);
                others.push(begun.elapsed());
                most = most.max(resident());
                std::thread::sleep(Duration::from_millis(50));
            }
            offered.join().expect("it was offered")
        });
        let slowest = others.into_iter().max().unwrap_or_default();
        lines.push(json!({
            "shape": name,
            "bytes": bytes.len(),
            "refused": refused.as_deref().unwrap_or("compiles within its limits"),
            "took_s": round(took.as_secs_f64(), 2),
            "goal_s": 25,
            "another_upload_at_most_ms": round(slowest.as_secs_f64() * 1e3, 1),
            "goal_another_ms": 1_000,
            "memory_grew_mib": most.saturating_sub(before) >> 20,
        }));
    }
    lines
}

/// Bytes that this process holds: it is the host here.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    kib << 10
}
