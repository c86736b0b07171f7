//! T10: components that are cheap to send and dear to compile. Each is refused before it is compiled or stopped by a limit of its compiler, and nobody
//! else notices. The dearer ones are in the figure `bomb`.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use skep_rules::manifest::Manifest;

use crate::harness::{Host, plugin, until, write};

mod shapes;

use shapes::Shape;

/// Offers a plugin to a host: what it says when it refuses it, at the upload or when the first agent of it is made ready.
fn refused(host: &Host, name: &str, component: &[u8]) -> Option<String> {
    let answer = host.install(&plugin(name, component, ""));
    if answer.status >= 400 {
        return Some(String::from_utf8_lossy(&answer.body).into_owned());
    }
    let crew = format!("name = \"{name}\"\n[[agent]]\nname = \"{name}\"\nplugin = \"test/{name}@1.0.0\"\n");
    let file = write(
        host.data().parent().expect("the data directory lies in a folder"),
        &format!("{name}.toml"),
        crew,
    );
    let run = host.skep(&["crew", "assemble", &file, "--wait"]);
    (run.code != 0).then(|| run.stdout + &run.stderr)
}

/// The processes that a process has started, by id.
fn children(parent: u32) -> Vec<u32> {
    let listed = fs::read_dir("/proc").expect("/proc is there").filter_map(Result::ok);
    listed
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| field(*pid, "PPid") == Some(parent.to_string()))
        .collect()
}

/// A line of `/proc/PID/status`.
fn field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// What a process has open.
fn open(pid: u32) -> Vec<PathBuf> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .collect()
}

/// Memory that a process holds, in MiB.
fn resident(pid: u32) -> u64 {
    let text = field(pid, "VmRSS").expect("the process lives");
    let kib: u64 = text.trim_end_matches(" kB").parse().expect("a number");
    kib >> 10
}

/// The shapes as they were measured, all beyond a ceiling.
const BEYOND: &[(&str, Shape, &str)] = &[
    ("functions", Shape::Functions(100_000), "functions"),
    (
        "adds",
        Shape::Adds {
            bodies: 1,
            adds: 500_000,
        },
        "bytes",
    ),
    ("ifs", Shape::Ifs { bodies: 1, ifs: 50_000 }, "bytes"),
    (
        "live",
        Shape::Live {
            bodies: 1,
            values: 40_000,
        },
        "bytes",
    ),
    (
        "locals",
        Shape::Locals {
            bodies: 1,
            locals: 4_000,
            loops: 60,
        },
        "locals",
    ),
    (
        "more-locals",
        Shape::Locals {
            bodies: 1,
            locals: 8_000,
            loops: 60,
        },
        "locals",
    ),
    (
        "targets",
        Shape::Tables {
            bodies: 10,
            tables: 40,
            targets: 5_000,
        },
        "branch table",
    ),
    (
        "blocks",
        Shape::Blocks {
            blocks: 60_000,
            targets: 60_000,
        },
        "bytes",
    ),
];

#[test]
fn what_passes_a_ceiling_is_refused_before_it_is_compiled() {
    for (name, shape, says) in BEYOND {
        let refused = skep_runtime::plugin::scan(&shape.component(1)).expect_err(name);
        assert!(
            refused.reason.code() == "compile-limit" && refused.message.contains(says),
            "{name}: {refused:?}"
        );
    }
}

/// Just below the ceilings, and cheap enough: what honest code may look like.
const FITTING: &[(&str, Shape)] = &[
    ("few-functions", Shape::Functions(5_000)),
    (
        "row",
        Shape::Adds {
            bodies: 1,
            adds: 60_000,
        },
    ),
    ("forks", Shape::Ifs { bodies: 1, ifs: 5_000 }),
    (
        "rewrites",
        Shape::Locals {
            bodies: 1,
            locals: 2_000,
            loops: 10,
        },
    ),
    (
        "branches",
        Shape::Tables {
            bodies: 1,
            tables: 60,
            targets: 4_096,
        },
    ),
    (
        "deep",
        Shape::Blocks {
            blocks: 60_000,
            targets: 4_096,
        },
    ),
];

#[test]
fn neighbours_that_fit_are_taken() {
    let host = Host::start();
    for (name, shape) in FITTING {
        assert_eq!(refused(&host, name, &shape.component(2)), None, "{name}");
    }
    assert!(children(host.pid()).is_empty(), "a compiler is left behind");
}

/// Two minutes of compilation, in a megabyte that passes every ceiling.
const BOMB: Shape = Shape::Live {
    bodies: 4,
    values: 28_000,
};

#[test]
#[expect(clippy::disallowed_methods, reason = "it is about time")]
fn a_bomb_is_stopped_and_disturbs_nobody() {
    let host = Host::start();
    assert_eq!(refused(&host, "first", skep_built_guests::FIGURES), None);
    let before = resident(host.pid());
    let bomb = BOMB.component(3);
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let offered = scope.spawn(|| refused(&host, "bomb", &bomb));
        let compiler = until("the compiler", || children(host.pid()).pop());
        let command = confined(&host, compiler);

        let start = Instant::now();
        // Of another publisher: one has its components compiled one after the other.
        let manifest =
            Manifest::parse("[plugin]\nname = \"neighbour/other\"\nversion = \"1.0.0\"\n").expect("a manifest");
        let other = skep_runtime::plugin::embed(skep_built_guests::FIGURES, &manifest).expect("a component");
        let other = host.install(&other);
        assert!(other.status < 300, "{}", String::from_utf8_lossy(&other.body));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!(!offered.is_finished(), "the bomb was still being compiled");

        cramped(&command);
        let said = offered.join().expect("it was offered").expect("it was refused");
        // On a machine that is busy with something else the minute is over before the 20 s of processor time are.
        let limit = said.contains("20s of processor time") || said.contains("longer than 1min");
        assert!(said.contains("compile-limit") && limit, "{said}");
        assert!(begun.elapsed() < Duration::from_secs(75), "{:?}", begun.elapsed());
    });
    let after = resident(host.pid());
    assert!(after < before + 64, "{before} MiB before, {after} MiB after");
    assert!(children(host.pid()).is_empty(), "a compiler is left behind");
    let cache = fs::read_dir(host.data().join("cache")).expect("the cache is there");
    let left: Vec<_> = cache.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(
        left.iter().all(|name| name.to_string_lossy().ends_with(".code")),
        "{left:?}"
    );
}

/// Asserts what holds a compiler while it works; its command line.
fn confined(host: &Host, pid: u32) -> Vec<String> {
    // It binds itself in its first milliseconds.
    until("the compiler is confined", || {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it works");
        let has = |name: &str, soft: u64| {
            let line = limits.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line[name.len()..].split_whitespace().next()) == Some(&soft.to_string())
        };
        let bound = has("Max cpu time", 20)
            && has("Max address space", 1536 << 20)
            && has("Max file size", 256 << 20)
            && has("Max open files", 32)
            && has("Max core file size", 0);
        let sealed = field(pid, "NoNewPrivs").as_deref() == Some("1") && field(pid, "Seccomp").as_deref() != Some("0");
        (bound && sealed).then_some(())
    });
    assert_eq!(field(pid, "Threads").as_deref(), Some("1"));
    let proc = |name: &str| format!("/proc/{pid}/{name}");
    assert_eq!(
        fs::read(proc("environ")).expect("it works"),
        b"",
        "nothing of the host's environment"
    );
    assert_eq!(fs::read_link(proc("cwd")).expect("it works"), Path::new("/"));
    // Of what its host has open, it has the file that it writes.
    let held: Vec<_> = open(host.pid())
        .into_iter()
        .filter(|path| path.starts_with(host.data()) || path.to_string_lossy().starts_with("socket:"))
        .collect();
    assert!(!held.is_empty(), "the host has a store and a listener");
    let shared = open(pid).into_iter().filter(|path| held.contains(path));
    let shared: Vec<_> = shared
        .filter(|path| !path.starts_with(host.data().join("cache")))
        .collect();
    assert!(shared.is_empty(), "{shared:?}");
    let line = fs::read_to_string(proc("cmdline")).expect("it works");
    line.split_terminator('\0').skip(1).map(str::to_owned).collect()
}

/// The compiler with less address space than the component needs ends by it, and says that it did; what it would write does not matter.
fn cramped(command: &[String]) {
    let directory = crate::harness::directory();
    let input = fs::File::open(write(
        directory.path(),
        "wide.wasm",
        Shape::Functions(50_000).component(4),
    ))
    .expect("it was written");
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 200000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_skep")])
        .args(command)
        .env_clear()
        .stdin(input)
        .stdout(Stdio::null())
        .output()
        .expect("a shell runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{:?}: {said}", output.status);
    assert!(said.contains("memory allocation"), "{said}");
}
