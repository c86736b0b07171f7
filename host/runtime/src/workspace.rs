//! The directories behind `/workspace`: one per attempt, empty when it begins and gone when it has ended.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Error;

/// Where the directories of attempts are made.
#[derive(Debug)]
pub(crate) struct Workspaces {
    path: PathBuf,
}

impl Workspaces {
    /// Makes the directory if it is not there, and removes what an earlier process left in it.
    ///
    /// # Errors
    /// When it cannot be made or emptied.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Directory {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Neither removal follows links.
            let removed = match entry.file_type().map_err(failed)?.is_dir() {
                true => std::fs::remove_dir_all(entry.path()),
                false => std::fs::remove_file(entry.path()),
            };
            removed.map_err(failed)?;
        }
        Ok(Workspaces { path: path.to_owned() })
    }

    /// An empty directory that only this user may enter.
    ///
    /// # Errors
    /// When the disk is full or the directory has gone.
    pub(crate) fn make(&self) -> std::io::Result<Workspace> {
        let made = tempfile::Builder::new().prefix("attempt-").tempdir_in(&self.path);
        made.map(|dir| Workspace(Some(dir)))
    }
}

/// One directory. What the guest left in it is removed when this is dropped: on a thread that may block, where a runtime is at hand.
#[derive(Debug)]
pub(crate) struct Workspace(
    /// Taken when it is dropped.
    Option<TempDir>,
);

impl Workspace {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), TempDir::path)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let dir = self.0.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(dir)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_process_left_is_removed_and_links_are_not_followed() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = outside.path().join("kept");
        std::fs::write(&kept, "x").unwrap();
        let path = root.path().join("workspaces");
        let first = Workspaces::open(&path).unwrap();
        let left = first.make().unwrap().0.take().unwrap().keep();
        std::os::unix::fs::symlink(outside.path(), left.join("out")).unwrap();
        std::os::unix::fs::symlink(outside.path(), path.join("out")).unwrap();
        let second = Workspaces::open(&path).unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        assert!(kept.exists());
        drop(second.make().unwrap());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }
}
