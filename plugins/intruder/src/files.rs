//! Drills against the file system: out of the mounts, into what is read-only, past the quotas.
//!
//! Nothing here harms a directory that was mounted writable by mistake: what is created is removed again, and existing files keep their
//! length and bytes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use crate::trial::Trial;

const MOUNT: &str = "/input";
const WORKSPACE: &str = "/workspace";

/// Entries of the mount that are looked at: enough to find something, few enough for the fuel.
const LOOK_AT: usize = 1000;
/// Sixty-four times what the plugin asks for: reaching it means that there is no quota.
const TOO_MANY_BYTES: usize = 64 << 20;
/// Far above any file quota or handle limit: reaching it means that there is none.
const TOO_MANY_FILES: usize = 100_000;

/// Read what belongs to the host.
pub(crate) fn read_outside(trial: &mut Trial) {
    for path in [
        "/etc/passwd",
        "../../etc/passwd",
        "/input/../../etc/passwd",
        "/workspace/../etc/passwd",
        "/proc/self/environ",
    ] {
        trial.must_fail(format!("read {path}"), fs::read(path));
    }
}

/// Create, open for writing and resize beneath the read-only mount.
pub(crate) fn write_mount(trial: &mut Trial) {
    let created = Path::new(MOUNT).join("skep-intruder-was-here");
    if trial
        .must_fail(format!("create {}", created.display()), File::create_new(&created))
        .is_some()
    {
        remove(trial, &created);
    }
    let folder = Path::new(MOUNT).join("skep-intruder-was-here.d");
    if trial
        .must_fail(format!("create {}/", folder.display()), fs::create_dir(&folder))
        .is_some()
        && let Err(error) = fs::remove_dir(&folder)
    {
        trial.breach(format!("{} stays behind: {error}", folder.display()));
    }
    if let Some(file) = entries().find(|path| path.is_file()) {
        let opened = trial.must_fail(
            format!("open {} for writing", file.display()),
            OpenOptions::new().write(true).open(&file),
        );
        if let Some(opened) = opened {
            // The length that it has already: a host that allows this allows any other.
            let resized = opened.metadata().and_then(|metadata| opened.set_len(metadata.len()));
            trial.must_fail(format!("resize {}", file.display()), resized);
        }
    }
}

/// Leave through a symbolic link: one of our own in the workspace, and those of the mount that point outside.
pub(crate) fn follow_symlink(trial: &mut Trial) {
    for target in ["../../../etc/passwd", "/etc/passwd"] {
        let link = Path::new(WORKSPACE).join("way-out");
        #[expect(deprecated, reason = "the only stable call that makes symbolic links on WASI")]
        match fs::soft_link(target, &link) {
            Err(refusal) => trial.saw(format!("link {} to {target}", link.display()), refusal.to_string()),
            Ok(()) => {
                trial.must_fail(format!("read {target} through {}", link.display()), fs::read(&link));
                remove(trial, &link);
            }
        }
    }
    // A host that does not even tell where a link leads has judged it already: it is tried all the same.
    let out = |path: &PathBuf| fs::read_link(path).map_or(true, |target| leads_out(path, &target));
    let links = entries().filter(|path| path.is_symlink()).filter(out);
    for link in links.collect::<Vec<_>>() {
        trial.must_fail(format!("read through {}", link.display()), fs::read(&link));
    }
}

/// Fill the workspace with bytes, then with files, until the host refuses.
pub(crate) fn workspace_flood(trial: &mut Trial) {
    let flood = Path::new(WORKSPACE).join("flood");
    let mut bytes = 0;
    let refusal = File::create(&flood).and_then(|mut file| {
        let block = [b'~'; 64 * 1024];
        while bytes < TOO_MANY_BYTES {
            file.write_all(&block)?;
            bytes += block.len();
        }
        Ok(())
    });
    if trial
        .must_fail(format!("write {TOO_MANY_BYTES} bytes"), refusal)
        .is_none()
    {
        trial.saw("count them", format!("{bytes} bytes were written"));
    }
    // Room for names again, so that it is the number of files that is tried next.
    if let Err(error) = fs::remove_file(&flood) {
        trial.saw("remove the flood", error.to_string());
    }
    let refusal = (0..TOO_MANY_FILES)
        .try_for_each(|number| File::create(Path::new(WORKSPACE).join(number.to_string())).map(drop));
    trial.must_fail(format!("create {TOO_MANY_FILES} files"), refusal);
}

/// Hoard open files until the host refuses or ends the attempt.
pub(crate) fn handles(trial: &mut Trial) {
    let hoarded = Path::new(WORKSPACE).join("hoarded");
    let mut hoard = Vec::new();
    let refusal = File::create(&hoarded).and_then(|first| {
        hoard.push(first);
        while hoard.len() < TOO_MANY_FILES {
            hoard.push(File::open(&hoarded)?);
        }
        Ok(())
    });
    trial.saw("count the open files", format!("{} were open at once", hoard.len()));
    trial.must_fail(format!("keep {TOO_MANY_FILES} files open"), refusal);
}

/// The first entries of the mount and of the folders directly beneath it.
fn entries() -> impl Iterator<Item = PathBuf> {
    let list = |path: &Path| -> Vec<PathBuf> {
        let listing: io::Result<Vec<_>> = fs::read_dir(path).and_then(|entries| entries.take(LOOK_AT).collect());
        listing.unwrap_or_default().iter().map(fs::DirEntry::path).collect()
    };
    let top = list(Path::new(MOUNT));
    let below: Vec<PathBuf> = top
        .iter()
        .filter(|path| path.is_dir() && !path.is_symlink())
        .flat_map(|path| list(path))
        .collect();
    top.into_iter().chain(below).take(LOOK_AT)
}

/// Whether a link in the mount points out of it, by its text alone.
fn leads_out(link: &Path, target: &Path) -> bool {
    if target.is_absolute() {
        return true;
    }
    let folder = link
        .strip_prefix(MOUNT)
        .unwrap_or(link)
        .parent()
        .unwrap_or(Path::new(""));
    let mut depth = 0usize;
    for component in folder.components().chain(target.components()) {
        match component {
            Component::ParentDir => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            Component::Normal(_) => depth += 1,
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    false
}

fn remove(trial: &mut Trial, path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        trial.breach(format!("{} stays behind: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_judged_by_where_they_lead() {
        let cases = [
            ("/input/a", "b", false),
            ("/input/a", "../b", true),
            ("/input/x/a", "../b", false),
            ("/input/x/a", "../../b", true),
            ("/input/x/a", "y/../../../etc", true),
            ("/input/x/a", "/etc/passwd", true),
        ];
        for (link, target, out) in cases {
            assert_eq!(leads_out(Path::new(link), Path::new(target)), out, "{link} -> {target}");
        }
    }
}
