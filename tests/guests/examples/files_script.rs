//! Does with files what its input says, in order, and tells how each step ended: `["ok", …]` with a number where there is one, or the error's
//! kind. `[{"do": "write", "path": "/workspace/a", "bytes": 10}, {"do": "open", "path": "/workspace/a"}]`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
};

use serde::Deserialize;
use skep_sdk::{Executor, Failure, Outcome, Task};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Step {
    /// How many bytes the file holds, by reading it.
    Read { path: String },
    /// How many entries the directory has.
    List { path: String },
    /// How long the file says it is.
    Stat { path: String },
    /// Make or empty the file and write so many bytes.
    Write { path: String, bytes: usize },
    /// Write so many bytes at the end.
    Append { path: String, bytes: usize },
    /// Write one byte at a place, which may be far behind the end.
    Poke { path: String, at: u64 },
    /// Set the length.
    SetLen { path: String, bytes: u64 },
    /// Make the file; it must not exist.
    Create { path: String },
    /// Make so many empty files `path/0`, `path/1`, …: how many came to be.
    Fill { path: String, count: usize },
    /// Make a directory.
    Mkdir { path: String },
    /// Remove a directory.
    Rmdir { path: String },
    /// Remove a file.
    Remove { path: String },
    /// Rename.
    Rename { path: String, to: String },
    /// Make a hard link.
    Link { path: String, to: String },
    /// Make a symbolic link at `path` that says `to`.
    Symlink { path: String, to: String },
    /// Open the file and keep it open: how many are open then.
    Hold { path: String },
    /// Open the file again and again until it is refused: how many were opened.
    Hoard { path: String },
    /// Close what is held.
    Release,
    /// Look at the file so many times.
    Spin { path: String, times: u64 },
}

struct Script {
    held: Vec<File>,
}

impl Script {
    fn step(&mut self, step: &Step) -> io::Result<u64> {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        match step {
            Step::Read { path } => {
                let mut bytes = Vec::new();
                File::open(path)?.read_to_end(&mut bytes).map(count)
            }
            Step::List { path } => Ok(count(fs::read_dir(path)?.count())),
            Step::Stat { path } => Ok(fs::metadata(path)?.len()),
            Step::Write { path, bytes } => {
                File::create(path)?.write_all(&vec![b'x'; *bytes])?;
                Ok(count(*bytes))
            }
            Step::Append { path, bytes } => {
                OpenOptions::new()
                    .append(true)
                    .open(path)?
                    .write_all(&vec![b'y'; *bytes])?;
                Ok(count(*bytes))
            }
            Step::Poke { path, at } => {
                let mut file = OpenOptions::new().write(true).open(path)?;
                file.seek(SeekFrom::Start(*at))?;
                file.write_all(b"z").map(|()| 1)
            }
            Step::SetLen { path, bytes } => {
                OpenOptions::new().write(true).open(path)?.set_len(*bytes)?;
                Ok(*bytes)
            }
            Step::Create { path } => File::create_new(path).map(|_| 0),
            Step::Fill { path, count: most } => {
                let made = (0..*most)
                    .take_while(|n| File::create_new(format!("{path}/{n}")).is_ok())
                    .count();
                Ok(count(made))
            }
            Step::Mkdir { path } => fs::create_dir(path).map(|()| 0),
            Step::Rmdir { path } => fs::remove_dir(path).map(|()| 0),
            Step::Remove { path } => fs::remove_file(path).map(|()| 0),
            Step::Rename { path, to } => fs::rename(path, to).map(|()| 0),
            Step::Link { path, to } => fs::hard_link(path, to).map(|()| 0),
            Step::Symlink { path, to } => symlink(to, path),
            Step::Hold { path } => {
                self.held.push(File::open(path)?);
                Ok(count(self.held.len()))
            }
            Step::Hoard { path } => {
                while let Ok(file) = File::open(path) {
                    self.held.push(file);
                }
                Ok(count(self.held.len()))
            }
            Step::Release => {
                self.held.clear();
                Ok(0)
            }
            Step::Spin { path, times } => {
                for _ in 0..*times {
                    fs::metadata(path)?;
                }
                Ok(*times)
            }
        }
    }
}

#[cfg(target_os = "wasi")]
#[expect(
    unsafe_code,
    reason = "the standard library has no stable way to make a symbolic link here"
)]
fn symlink(target: &str, at: &str) -> io::Result<u64> {
    use std::ffi::{CString, c_char, c_int};

    unsafe extern "C" {
        fn symlink(target: *const c_char, at: *const c_char) -> c_int;
    }
    let (target, at) = (CString::new(target)?, CString::new(at)?);
    // SAFETY: both are texts that end in a zero and live beyond the call.
    match unsafe { symlink(target.as_ptr(), at.as_ptr()) } {
        0 => Ok(0),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "wasi"))]
fn symlink(_: &str, _: &str) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

struct Files;

impl Executor for Files {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let steps: Vec<Step> = task.input()?;
        let mut script = Script { held: Vec::new() };
        let ends = steps.iter().map(|step| match script.step(step) {
            Ok(number) => format!("ok {number}"),
            Err(error) => format!("{:?}", error.kind()),
        });
        Ok(Outcome::json(&ends.collect::<Vec<_>>())?)
    }
}

skep_sdk::executor!(Files);
