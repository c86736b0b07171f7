//! `kill -9` at the writes of an install. `strace` watches the host while a plugin is uploaded and kills it at the first call of a kind, then at the
//! second, and so on until an install gets through: on the disk there is afterwards a whole plugin with its number, or none at all, and never a
//! file that belongs to nothing. `strace` counts the calls of each thread for itself, and which thread does what is not the test's to choose: the
//! n-th round kills where the first of the host's threads makes its n-th call of the kind, so later calls that are spread over many threads may
//! be passed by. The process that compiles is watched as well; its end is a refused install. Machines that have no `strace`, or let nobody trace,
//! skip this and say so.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use skep_rules::manifest::Manifest;

use crate::harness::{Host, directory, key, release, sign, until, write};

/// Calls by which an install changes what is on the disk, and those after which a change is certain.
const WRITES: &[&str] = &[
    "mkdir",
    "openat",
    "openat2",
    "write",
    "writev",
    "pwrite64",
    "ftruncate",
    "fdatasync",
    "fsync",
    "rename",
    "renameat",
    "linkat",
    "unlink",
    "unlinkat",
];
/// Calls of one kind by one thread that are tried. An install makes fewer of each but of `write`, which also wakes threads and answers the client.
const MOST: u32 = 20;

/// Two releases of one plugin: files and envelopes.
struct Releases {
    first: [String; 2],
    second: [String; 2],
}

fn releases(directory: &Path) -> Releases {
    let echo = skep_bundled::get("echo").expect("echo comes with Skep");
    let one = |version: &str| {
        let text = format!("[plugin]\nname = \"test/crash\"\nversion = \"{version}\"\n");
        let file = skep_runtime::plugin::embed(echo.component, &Manifest::parse(&text).unwrap()).unwrap();
        let envelope = sign(&release(&file), &[&key()]);
        [
            write(directory, &format!("{version}.wasm"), file),
            write(directory, &format!("{version}.wasm.sig"), envelope),
        ]
    };
    Releases {
        first: one("1.0.0"),
        second: one("1.0.1"),
    }
}

fn install(host: &Host, [file, envelope]: &[String; 2]) -> crate::harness::Run {
    host.skep(&[
        "plugin",
        "install",
        file,
        "--sig",
        envelope,
        "--publisher",
        "test",
        "--yes",
    ])
}

/// A tracer that ends its host at a call.
struct Tracer(Child);

impl Tracer {
    fn attach(host: &Host, call: &str, when: u32) -> Tracer {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:signal=KILL:when={when}")])
            .args(["-p", &host.pid().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it could be started before");
        // Owned from here on, so that it ends also when the wait fails.
        let tracer = Tracer(child);
        until("every thread is traced, or the host is gone", || {
            traced(host.pid()).then_some(())
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn traced(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let statuses = threads.map(|thread| fs::read_to_string(thread.path().join("status")).unwrap_or_default());
    statuses.into_iter().all(|status| !status.contains("TracerPid:\t0\n"))
}

/// Whether this machine has the tracer, and lets it at a process that it has not started: some let nobody but root.
fn can_trace() -> bool {
    let Ok(mut sleeper) = Command::new("sleep").arg("60").spawn() else {
        return false;
    };
    let tracer = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-p", &sleeper.id().to_string()])
        .stderr(Stdio::null())
        .spawn();
    let can = tracer.is_ok_and(|tracer| {
        let mut tracer = Tracer(tracer);
        until("the tracer is there, or has given up", || {
            let refused = tracer.0.try_wait().expect("a child can be asked").is_some();
            (refused || traced(sleeper.id())).then_some(!refused)
        })
    });
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    can
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What is on the disk beside the journal: files of plugins, of the code cache, and marks of installs that are under way.
fn files(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data.join("store/blobs"), data.join("cache"), data.join("installing")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path().strip_prefix(data).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn an_install_is_whole_or_not_at_all_wherever_it_is_killed() {
    if !can_trace() {
        eprintln!("SKIPPED: `strace` is not here or may not trace, so no install was killed");
        return;
    }
    let home = directory();
    let releases = releases(home.path());
    let prepared = home.path().join("prepared");
    let (before, after) = {
        let mut host = Host::start_in(&prepared, &[]);
        host.trust("test");
        install(&host, &releases.first).exits(0);
        host.kill();
        let before = files(&prepared);
        let whole = home.path().join("whole");
        copy(&prepared, &whole);
        let mut host = Host::start_in(&whole, &[]);
        install(&host, &releases.second).exits(0);
        host.kill();
        (before, files(&whole))
    };
    assert!(after.len() > before.len());

    let (mut killed, mut installed) = (0, 0);
    for call in WRITES {
        for when in 1..=MOST {
            let at = format!("{call} {when}");
            let data = home.path().join("data");
            let _ = fs::remove_dir_all(&data);
            copy(&prepared, &data);
            let host = Host::start_in(&data, &[]);
            let tracer = Tracer::attach(&host, call, when);
            let run = install(&host, &releases.second);
            // The compile child is watched as well; its end is the install's, not the host's.
            let lives = host.lives();
            drop(tracer);
            drop(host);
            killed += u32::from(!lives || run.code != 0);

            let host = Host::start_in(&data, &[]);
            host.skep(&["audit", "verify"]).exits(0);
            let listed = host.get("/v1/plugins")["items"].as_array().unwrap().len();
            if listed == 2 {
                assert_eq!(files(&data), after, "{at}: whole, and nothing besides");
                installed += 1;
                let old = install(&host, &releases.first).exits(0);
                assert!(old.stdout.contains("1.0.0"), "{at}: {}", old.stdout);
                // Its number came with it: once the older release is gone, it does not come back.
                host.skep(&["plugin", "remove", "test/crash@1.0.0", "--yes"]).exits(0);
                install(&host, &releases.first).exits(6).says(&["code: rollback"]);
            } else {
                assert_eq!((listed, run.code == 0), (1, false), "{at}: what was promised is there");
                assert_eq!(files(&data), before, "{at}: nothing is left behind");
                install(&host, &releases.second).exits(0);
            }
            drop(host);
            if lives && run.code == 0 {
                break;
            }
        }
    }
    eprintln!("{killed} installs were killed, {installed} of them were there afterwards");
    assert!(killed >= 10, "{killed}");
}
