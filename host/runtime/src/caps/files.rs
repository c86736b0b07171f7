//! `wasi:filesystem`: gives the directories that the operator mounted, read-only unless granted otherwise, and `/workspace`, an empty directory per
//! attempt with a quota in bytes and entries. Granted by `files` and `workspace`. What is refused, and noted:
//!
//! - every path outside the mounts, also by `..`, by absolute paths and by symbolic links that lead out (`mount-denied`). For this a directory `/`
//!   is handed out that holds nothing: without it the guest's own library would answer "no such file", and nobody would learn what was tried. The
//!   guest sees the same answer with it;
//! - changes beneath a read-only mount, links of both kinds, renames between mounts, and everything that is neither a regular file nor a directory
//!   (`mount-denied`);
//! - growth beyond the quota of `/workspace` (`quota-exceeded`), and more than 64 open files and directories (`handle-limit`).
//!
//! A path inside a mount that does not exist is an ordinary error and no denial.
//!
//! File operations run on the guest's own thread: handing each to a thread pool costs a fifth more, and the guest waits either way. While one runs,
//! the attempt's pulse says so, so that a slow disk is not taken for a guest that does not yield.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Weak},
};

use skep_rules::{
    grant::Effective,
    limits::{MAX_DESCRIPTORS, MAX_LISTINGS, MAX_PATH_BYTES},
    manifest::Access,
    reason::Reason,
};
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    FsPerms, OpenMode, WasiCtx, WasiCtxView, WasiView,
    filesystem::{Dir, WasiFilesystemCtx, WasiFilesystemCtxView, WasiFilesystemView as _},
    p2::{
        DynInputStream, DynOutputStream, FsError, FsResult,
        bindings::filesystem::{
            preopens,
            types::{
                self, Advice, Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
                DirectoryEntryStream, ErrorCode, Filesize, HostDescriptor as _, MetadataHashValue, NewTimestamp,
                OpenFlags, PathFlags,
            },
        },
    },
};

use super::{
    base::{Base, Error, Get, HasBase},
    quota::{Counted, Full, Key, Quota},
};
use crate::denials::Denials;

/// Where the attempt's own directory is seen.
pub(crate) const WORKSPACE: &str = "/workspace";
/// What creating an entry, opening or looking one up may cost in system calls counts as so many bytes moved: the price of two calls.
const LOOKUP: u64 = 16 << 10;

/// Stands in the table for the directory `/` that holds nothing. The library's code, if it were reached with it, would find the wrong type.
struct Nowhere;

/// The files of one attempt.
pub(super) struct Files {
    /// Settings of the library; holds no directory.
    library: WasiFilesystemCtx,
    mounts: Vec<Mounted>,
    /// What each descriptor stands for, by its place in the table.
    places: BTreeMap<u32, Place>,
    /// Open files and directories, streams into them included, as far as they still live; at most [`MAX_DESCRIPTORS`].
    open: Vec<Weak<std::fs::File>>,
    /// Listings that still live; at most [`MAX_LISTINGS`].
    listings: u32,
    denials: Denials,
}

/// A directory of the host as the agent sees it.
struct Mounted {
    guest: String,
    dir: Dir,
    /// Its account, if it is the workspace.
    quota: Option<Quota>,
}

/// What a descriptor stands for.
#[derive(Clone)]
struct Place {
    /// Which of the mounts; `None` is `/`.
    mount: Option<usize>,
    /// Its path as the agent would write it, for denials.
    path: String,
    /// The account and the identity of a regular file of the workspace.
    counted: Option<(Quota, Key)>,
}

impl Files {
    /// Opens the mounts of `effective` and the workspace, if bytes of one were granted.
    pub(super) fn open(effective: &Effective, workspace: Option<&Path>, denials: Denials) -> Result<Self, Error> {
        let mut mounts = Vec::with_capacity(effective.mounts.len() + 1);
        for mount in &effective.mounts {
            let perms = match mount.access {
                Access::Read => FsPerms::ReadOnly,
                Access::Write => FsPerms::ReadWrite,
            };
            mounts.push(Mounted::open(
                mount.guest.as_str(),
                Path::new(&mount.host),
                perms,
                None,
            )?);
        }
        if let (Some(path), true) = (workspace, effective.workspace.0 > 0) {
            let quota = Quota::new(effective.workspace.0, effective.limits.workspace_files, denials.clone());
            mounts.push(Mounted::open(WORKSPACE, path, FsPerms::ReadWrite, Some(quota))?);
        }
        Ok(Files {
            library: library(),
            mounts,
            places: BTreeMap::new(),
            open: Vec::new(),
            listings: 0,
            denials,
        })
    }

    /// Whether one more file or directory may be opened.
    fn has_room(&mut self) -> bool {
        let most = usize::try_from(MAX_DESCRIPTORS).unwrap_or(usize::MAX);
        if self.open.len() >= most {
            self.open.retain(|file| file.strong_count() > 0);
        }
        self.open.len() < most
    }

    fn place(&self, rep: u32) -> Option<&Place> {
        self.places.get(&rep)
    }
}

/// The library's settings can be had only by building a whole context.
fn library() -> WasiFilesystemCtx {
    struct Whole(WasiCtx, wasmtime::component::ResourceTable);
    impl WasiView for Whole {
        fn ctx(&mut self) -> WasiCtxView<'_> {
            WasiCtxView {
                ctx: &mut self.0,
                table: &mut self.1,
            }
        }
    }
    static LIBRARY: std::sync::LazyLock<std::sync::Mutex<WasiFilesystemCtx>> = std::sync::LazyLock::new(|| {
        let context = WasiCtx::builder().allow_blocking_current_thread(true).build();
        let mut whole = Whole(context, wasmtime::component::ResourceTable::new());
        std::sync::Mutex::new(whole.filesystem().ctx.clone())
    });
    LIBRARY
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone()
}

impl Mounted {
    fn open(guest: &str, host: &Path, perms: FsPerms, quota: Option<Quota>) -> Result<Self, Error> {
        let opened = cap_std::fs::Dir::open_ambient_dir(host, cap_std::ambient_authority());
        let dir = opened.map_err(|source| Error {
            guest: guest.to_owned(),
            source,
        })?;
        let mode = match perms {
            FsPerms::ReadOnly => OpenMode::READ,
            FsPerms::ReadWrite => OpenMode::READ | OpenMode::WRITE,
        };
        Ok(Mounted {
            guest: guest.to_owned(),
            dir: Dir::new(dir.into_std_file(), perms, mode, true),
            quota,
        })
    }
}

/// Links `wasi:filesystem`.
///
/// # Errors
/// When the linker holds one of the interfaces already.
pub(super) fn link<T: Send + 'static>(linker: &mut Linker<T>, get: Get<T>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<T, HasBase>(linker, get)?;
    types::add_to_linker::<T, HasBase>(linker, get)
}

/// What a call tries, put into words only when it is refused.
struct Tried<'a> {
    verb: &'a str,
    /// The path of the descriptor that it starts from.
    base: String,
    path: &'a str,
}

impl Tried<'_> {
    fn target(&self) -> String {
        join(&self.base, self.path)
    }
}

/// The path that a guest would write for `path` seen from `base`.
fn join(base: &str, path: &str) -> String {
    match (base, path) {
        (_, "" | ".") => base.to_owned(),
        (_, path) if path.starts_with('/') => path.to_owned(),
        ("/", path) => format!("/{path}"),
        (base, path) => format!("{base}/{path}"),
    }
}

fn borrow(rep: u32) -> Resource<Descriptor> {
    Resource::new_borrow(rep)
}

impl Base {
    fn library(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView {
            ctx: &mut self.files.library,
            table: &mut self.table,
        }
    }

    fn fs_charge(&mut self, bytes: u64) -> FsResult<()> {
        self.meter.charge(bytes).map_err(FsError::trap)
    }

    /// Begins a call on a descriptor: counts it, and refuses it when the descriptor is `/`.
    fn begin(&mut self, verb: &'static str, fd: &Resource<Descriptor>, bytes: u64) -> FsResult<()> {
        self.begin_at(verb, fd, "", bytes).map(drop)
    }

    /// Begins a call on a path: counts it, and refuses it when it leads nowhere.
    fn begin_at<'a>(
        &mut self,
        verb: &'a str,
        fd: &Resource<Descriptor>,
        path: &'a str,
        bytes: u64,
    ) -> FsResult<Tried<'a>> {
        self.fs_charge(bytes)?;
        if path.len() > MAX_PATH_BYTES {
            return Err(ErrorCode::NameTooLong.into());
        }
        let Some(place) = self.files.place(fd.rep()) else {
            return Err(FsError::trap(wasmtime::component::ResourceTableError::NotPresent));
        };
        let tried = Tried {
            verb,
            base: place.path.clone(),
            path,
        };
        match place.mount {
            Some(_) => Ok(tried),
            None => Err(self.deny(&tried, ErrorCode::NoEntry)),
        }
    }

    /// Notes a refusal and gives the guest `code` for it.
    fn deny(&self, tried: &Tried<'_>, code: ErrorCode) -> FsError {
        self.files
            .denials
            .note(Reason::MountDenied, &format!("{} {}", tried.verb, tried.target()));
        code.into()
    }

    /// Ends a call: what the library did not permit is a denial, every other error is the guest's own affair.
    fn end<R>(&self, tried: &Tried<'_>, result: FsResult<R>) -> FsResult<R> {
        match result {
            Err(error) if matches!(error.downcast_ref(), Some(ErrorCode::NotPermitted)) => {
                Err(self.deny(tried, ErrorCode::NotPermitted))
            }
            other => other,
        }
    }

    /// The same for a call on the descriptor itself.
    fn end_here<R>(&self, verb: &str, rep: u32, result: FsResult<R>) -> FsResult<R> {
        let base = self
            .files
            .place(rep)
            .map(|place| place.path.clone())
            .unwrap_or_default();
        self.end(&Tried { verb, base, path: "" }, result)
    }

    fn is_nowhere(&self, fd: &Resource<Descriptor>) -> bool {
        self.files.place(fd.rep()).is_some_and(|place| place.mount.is_none())
    }

    /// The account of the mount that a directory descriptor belongs to.
    fn quota_of(&self, rep: u32) -> Option<Quota> {
        let mount = self.files.place(rep)?.mount?;
        self.files.mounts.get(mount)?.quota.clone()
    }

    /// The account and identity of a regular file of the workspace.
    fn counted(&self, rep: u32) -> Option<(Quota, Key)> {
        self.files.place(rep)?.counted.clone()
    }

    /// What identifies the entry at a path, links not followed; `None` when there is none.
    async fn key_at(&mut self, rep: u32, path: &str) -> Option<Key> {
        let hash = self
            .library()
            .metadata_hash_at(borrow(rep), PathFlags::empty(), path.to_owned())
            .await;
        hash.ok().map(|hash| (hash.lower, hash.upper))
    }

    /// Opens what is known to be permitted in kind, and keeps account of it.
    async fn open_counted(
        &mut self,
        parent: u32,
        path_flags: PathFlags,
        path: &str,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let quota = self.quota_of(parent);
        let opened = self
            .library()
            .open_at(borrow(parent), path_flags, path.to_owned(), open_flags, flags)
            .await?;
        let rep = opened.rep();
        let (file, regular) = match self.table.get(&opened)? {
            Descriptor::File(file) => (file.file.clone(), true),
            Descriptor::Dir(dir) => (dir.dir.clone(), false),
        };
        // The entry may have changed between the look and the opening; a guest cannot do that, a neighbour on the host can.
        if regular && !file.metadata()?.is_file() {
            self.table.delete(opened)?;
            return Err(ErrorCode::NotPermitted.into());
        }
        let counted = match quota {
            Some(quota) if regular => {
                let hash = self.library().metadata_hash(borrow(rep)).await?;
                let key = (hash.lower, hash.upper);
                quota.opened(key, &file);
                if open_flags.contains(OpenFlags::TRUNCATE) {
                    quota.cut(key, 0);
                }
                Some((quota, key))
            }
            _ => None,
        };
        self.files.open.push(Arc::downgrade(&file));
        let base = self.files.place(parent);
        let place = Place {
            mount: base.and_then(|place| place.mount),
            path: join(base.map_or("", |place| &place.path), path),
            counted,
        };
        self.files.places.insert(rep, place);
        Ok(opened)
    }
}

impl preopens::Host for Base {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.meter.charge(0)?;
        let mut directories = Vec::with_capacity(self.files.mounts.len() + 1);
        let seen = self.files.mounts.iter().enumerate();
        let mounts = seen.map(|(at, mount)| (Some((at, mount.dir.clone())), mount.guest.clone()));
        for (mount, path) in mounts.chain([(None, "/".to_owned())]).collect::<Vec<_>>() {
            let (mount, rep) = match mount {
                Some((at, dir)) => (Some(at), self.table.push(Descriptor::Dir(dir))?.rep()),
                None => (None, self.table.push(Nowhere)?.rep()),
            };
            let place = Place {
                mount,
                path: path.clone(),
                counted: None,
            };
            self.files.places.insert(rep, place);
            directories.push((Resource::new_own(rep), path));
        }
        Ok(directories)
    }
}

impl types::Host for Base {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        self.meter.charge(0)?;
        self.library().filesystem_error_code(error)
    }
}

impl types::HostDescriptor for Base {
    /// A hint, and not taken: what stays in the host's page cache is the host's affair.
    async fn advise(&mut self, fd: Resource<Descriptor>, _: Filesize, _: Filesize, _: Advice) -> FsResult<()> {
        self.begin("advise", &fd, 0)
    }

    async fn sync_data(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.sync(fd).await
    }

    /// Writes to a writable mount reach the disk. `/workspace` does not outlive the attempt and read-only mounts are not written, so there is
    /// nothing to wait for: a guest cannot make the disk busy.
    async fn sync(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.begin("sync", &fd, LOOKUP)?;
        let writable = match self.table.get(&fd)? {
            Descriptor::File(file) => !file.perms.write_not_permitted(),
            Descriptor::Dir(dir) => !dir.perms.write_not_permitted(),
        };
        if !writable || self.quota_of(fd.rep()).is_some() {
            return Ok(());
        }
        let _waiting = self.meter.waiting();
        self.library().sync(fd).await
    }

    async fn get_flags(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        self.fs_charge(0)?;
        match self.is_nowhere(&fd) {
            true => Ok(DescriptorFlags::READ),
            false => self.library().get_flags(fd).await,
        }
    }

    async fn get_type(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorType> {
        self.fs_charge(0)?;
        match self.is_nowhere(&fd) {
            true => Ok(DescriptorType::Directory),
            false => self.library().get_type(fd).await,
        }
    }

    async fn set_size(&mut self, fd: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        self.begin("set the size of", &fd, LOOKUP)?;
        let rep = fd.rep();
        let counted = self.counted(rep);
        if let Some((quota, key)) = &counted {
            quota.reach(*key, size).map_err(no_space)?;
        }
        let _waiting = self.meter.waiting();
        let result = self.library().set_size(fd, size).await;
        if let (Some((quota, key)), Ok(())) = (&counted, &result) {
            quota.cut(*key, size);
        }
        self.end_here("set the size of", rep, result)
    }

    async fn set_times(
        &mut self,
        fd: Resource<Descriptor>,
        access: NewTimestamp,
        change: NewTimestamp,
    ) -> FsResult<()> {
        self.begin("set the times of", &fd, LOOKUP)?;
        let rep = fd.rep();
        let _waiting = self.meter.waiting();
        let result = self.library().set_times(fd, access, change).await;
        self.end_here("set the times of", rep, result)
    }

    async fn read(
        &mut self,
        fd: Resource<Descriptor>,
        length: Filesize,
        offset: Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        // The library reads at most 64 KiB at once.
        self.begin("read", &fd, length.min(64 << 10))?;
        let _waiting = self.meter.waiting();
        self.library().read(fd, length, offset).await
    }

    async fn write(&mut self, fd: Resource<Descriptor>, bytes: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.begin("write", &fd, length)?;
        let rep = fd.rep();
        if let Some((quota, key)) = self.counted(rep) {
            quota.reach(key, offset.saturating_add(length)).map_err(no_space)?;
        }
        let _waiting = self.meter.waiting();
        let result = self.library().write(fd, bytes, offset).await;
        self.end_here("write", rep, result)
    }

    async fn read_directory(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DirectoryEntryStream>> {
        self.begin("list", &fd, LOOKUP)?;
        if self.files.listings >= MAX_LISTINGS {
            let message = format!("hold more than {MAX_LISTINGS} listings of directories at a time");
            self.files.denials.note(Reason::HandleLimit, &message);
            return Err(ErrorCode::Quota.into());
        }
        let rep = fd.rep();
        let _waiting = self.meter.waiting();
        let result = self.library().read_directory(fd).await;
        if result.is_ok() {
            self.files.listings += 1;
        }
        self.end_here("list", rep, result)
    }

    async fn create_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        let tried = self.begin_at("make directory", &fd, &path, LOOKUP)?;
        let quota = self.quota_of(fd.rep());
        if let Some(quota) = &quota {
            quota.add_entry().map_err(no_space)?;
        }
        let _waiting = self.meter.waiting();
        let result = self.library().create_directory_at(fd, path.clone()).await;
        if let (Some(quota), Err(_)) = (&quota, &result) {
            quota.drop_entry();
        }
        self.end(&tried, result)
    }

    async fn stat(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        self.fs_charge(0)?;
        if self.is_nowhere(&fd) {
            return Ok(DescriptorStat {
                type_: DescriptorType::Directory,
                link_count: 1,
                size: 0,
                data_access_timestamp: None,
                data_modification_timestamp: None,
                status_change_timestamp: None,
            });
        }
        let _waiting = self.meter.waiting();
        self.library().stat(fd).await
    }

    async fn stat_at(&mut self, fd: Resource<Descriptor>, flags: PathFlags, path: String) -> FsResult<DescriptorStat> {
        let tried = self.begin_at("look at", &fd, &path, LOOKUP)?;
        let _waiting = self.meter.waiting();
        let result = self.library().stat_at(fd, flags, path.clone()).await;
        self.end(&tried, result)
    }

    async fn set_times_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        access: NewTimestamp,
        change: NewTimestamp,
    ) -> FsResult<()> {
        let tried = self.begin_at("set the times of", &fd, &path, LOOKUP)?;
        let _waiting = self.meter.waiting();
        let result = self
            .library()
            .set_times_at(fd, flags, path.clone(), access, change)
            .await;
        self.end(&tried, result)
    }

    async fn link_at(
        &mut self,
        fd: Resource<Descriptor>,
        _: PathFlags,
        path: String,
        _: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let verb = format!("link {} to", cut(&new_path));
        let tried = self.begin_at(&verb, &fd, &path, LOOKUP)?;
        Err(self.deny(&tried, ErrorCode::NotPermitted))
    }

    async fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let writes =
            open_flags.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE) || flags.contains(DescriptorFlags::WRITE);
        let verb = if writes { "open for writing" } else { "open" };
        let tried = self.begin_at(verb, &fd, &path, LOOKUP)?;
        if !self.files.has_room() {
            let message = format!("open more than {MAX_DESCRIPTORS} files at a time");
            self.files.denials.note(Reason::HandleLimit, &message);
            return Err(ErrorCode::Quota.into());
        }
        let parent = fd.rep();
        let _waiting = self.meter.waiting();
        let creates = match self.library().stat_at(fd, path_flags, path.clone()).await {
            // A symbolic link that is not to be followed is left to the library, which refuses to open it.
            Ok(found) => match found.type_ {
                DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink => false,
                _ => return Err(self.deny(&tried, ErrorCode::NotPermitted)),
            },
            Err(error) => match error.downcast_ref() {
                Some(ErrorCode::NoEntry) if open_flags.contains(OpenFlags::CREATE) => true,
                _ => return self.end(&tried, Err(error)),
            },
        };
        let charged = self.quota_of(parent).filter(|_| creates);
        if let Some(quota) = &charged {
            quota.add_entry().map_err(no_space)?;
        }
        let result = self.open_counted(parent, path_flags, &path, open_flags, flags).await;
        if let (Some(quota), Err(_)) = (&charged, &result) {
            quota.drop_entry();
        }
        self.end(&tried, result)
    }

    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        let place = self.files.places.remove(&fd.rep());
        match place.is_some_and(|place| place.mount.is_none()) {
            true => self.table.delete::<Nowhere>(Resource::new_own(fd.rep())).map(drop)?,
            false => self.table.delete(fd).map(drop)?,
        }
        Ok(())
    }

    async fn readlink_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<String> {
        let tried = self.begin_at("read the link", &fd, &path, LOOKUP)?;
        let _waiting = self.meter.waiting();
        let result = self.library().readlink_at(fd, path.clone()).await;
        self.end(&tried, result)
    }

    async fn remove_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        let tried = self.begin_at("remove", &fd, &path, LOOKUP)?;
        let quota = self.quota_of(fd.rep());
        let _waiting = self.meter.waiting();
        let result = self.library().remove_directory_at(fd, path.clone()).await;
        if let (Some(quota), Ok(())) = (&quota, &result) {
            quota.drop_entry();
        }
        self.end(&tried, result)
    }

    async fn rename_at(
        &mut self,
        fd: Resource<Descriptor>,
        path: String,
        new_fd: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let (rep, new_rep) = (fd.rep(), new_fd.rep());
        let target = self.begin_at("rename to", &new_fd, &new_path, LOOKUP)?;
        let tried = self.begin_at("rename", &fd, &path, LOOKUP)?;
        let mount = |rep| self.files.place(rep).and_then(|place| place.mount);
        if mount(rep) != mount(new_rep) {
            return Err(self.deny(&target, ErrorCode::CrossDevice));
        }
        let quota = self.quota_of(rep);
        let _waiting = self.meter.waiting();
        let (source, replaced) = match quota {
            Some(_) => (self.key_at(rep, &path).await, self.key_at(new_rep, &new_path).await),
            None => (None, None),
        };
        let result = self
            .library()
            .rename_at(fd, path.clone(), new_fd, new_path.clone())
            .await;
        // Renaming an entry to itself changes nothing.
        if let (Some(quota), Some(replaced), Ok(())) = (quota, replaced.filter(|_| replaced != source), &result) {
            quota.removed(replaced);
        }
        self.end(&tried, result)
    }

    async fn symlink_at(&mut self, fd: Resource<Descriptor>, target: String, path: String) -> FsResult<()> {
        let verb = format!("make a symbolic link to {} at", cut(&target));
        let tried = self.begin_at(&verb, &fd, &path, LOOKUP)?;
        Err(self.deny(&tried, ErrorCode::NotPermitted))
    }

    async fn unlink_file_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        let tried = self.begin_at("remove", &fd, &path, LOOKUP)?;
        let rep = fd.rep();
        let quota = self.quota_of(rep);
        let _waiting = self.meter.waiting();
        let key = match quota {
            Some(_) => self.key_at(rep, &path).await,
            None => None,
        };
        let result = self.library().unlink_file_at(fd, path.clone()).await;
        if let (Some(quota), Some(key), Ok(())) = (quota, key, &result) {
            quota.removed(key);
        }
        self.end(&tried, result)
    }

    fn read_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        self.begin("read", &fd, 0)?;
        self.library().read_via_stream(fd, offset)
    }

    fn write_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        self.begin("write", &fd, 0)?;
        let rep = fd.rep();
        let stream = self.library().write_via_stream(fd, offset);
        let stream = self.end_here("write", rep, stream)?;
        self.count_stream(rep, stream, Some(offset))
    }

    fn append_via_stream(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        self.begin("append to", &fd, 0)?;
        let rep = fd.rep();
        let stream = self.library().append_via_stream(fd);
        let stream = self.end_here("append to", rep, stream)?;
        self.count_stream(rep, stream, None)
    }

    async fn is_same_object(&mut self, a: Resource<Descriptor>, b: Resource<Descriptor>) -> wasmtime::Result<bool> {
        self.meter.charge(0)?;
        match (self.is_nowhere(&a), self.is_nowhere(&b)) {
            (false, false) => self.library().is_same_object(a, b).await,
            (a, b) => Ok(a && b),
        }
    }

    async fn metadata_hash(&mut self, fd: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        self.fs_charge(0)?;
        match self.is_nowhere(&fd) {
            true => Ok(MetadataHashValue { lower: 0, upper: 0 }),
            false => self.library().metadata_hash(fd).await,
        }
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let tried = self.begin_at("look at", &fd, &path, LOOKUP)?;
        let _waiting = self.meter.waiting();
        let result = self.library().metadata_hash_at(fd, flags, path.clone()).await;
        self.end(&tried, result)
    }
}

impl Base {
    /// Puts a stream into the workspace behind its account.
    fn count_stream(
        &mut self,
        rep: u32,
        stream: Resource<DynOutputStream>,
        at: Option<u64>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let Some((quota, key)) = self.counted(rep) else {
            return Ok(stream);
        };
        let inner = self.table.delete(stream)?;
        Ok(self.table.push(Counted::wrap(inner, quota, key, at))?)
    }
}

fn no_space(Full: Full) -> FsError {
    ErrorCode::InsufficientSpace.into()
}

/// The beginning of a path, for a text that is cut later anyway.
fn cut(path: &str) -> &str {
    path.get(..path.floor_char_boundary(128)).unwrap_or_default()
}

impl types::HostDirectoryEntryStream for Base {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        self.fs_charge(0)?;
        self.library().read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.files.listings = self.files.listings.saturating_sub(1);
        types::HostDirectoryEntryStream::drop(&mut self.library(), stream)
    }
}
