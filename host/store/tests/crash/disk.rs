//! A disk made of memory under the engine. It writes down all that is done to it, in order, so that any crash can be played
//! afterwards, and it can be told to fail.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;
use skep_store::{Error, Options, Position, Recovered, Redb, Store};

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;

/// What reached the disk, in order, with what the store said meanwhile.
#[derive(Debug, Clone)]
pub(crate) enum Happened {
    Written(usize, Arc<[u8]>),
    Resized(usize),
    Synced,
    /// The store said that this position is durable.
    Acknowledged(Position),
}

/// One operation fails; the disk works again after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Its number among all reads, writes, resizes and syncs.
    pub(crate) at: usize,
    /// An error number of the operating system.
    pub(crate) errno: i32,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) bytes: Vec<u8>,
    pub(crate) happened: Vec<Happened>,
    pub(crate) fault: Option<Fault>,
    /// Reads, writes, resizes and syncs so far, failed ones included.
    pub(crate) operations: usize,
    /// How much had happened when an operation failed.
    pub(crate) failed: Option<usize>,
}

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State {
            bytes,
            ..State::default()
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn acknowledge(&self, position: Position) {
        self.state().happened.push(Happened::Acknowledged(position));
    }

    /// Does it, unless this is the operation that fails. A write that fails may have been done in part.
    fn operate(&self, happened: Happened) -> io::Result<()> {
        let mut state = self.state();
        if let Err(error) = state.count() {
            if let Happened::Written(offset, bytes) = &happened {
                let half = bytes.len() / 2 / SECTOR * SECTOR;
                state.put(Happened::Written(*offset, bytes[..half].into()));
            }
            state.failed = Some(state.happened.len());
            return Err(error);
        }
        state.put(happened);
        Ok(())
    }
}

impl State {
    /// Counts an operation, and refuses it when it is the one that fails.
    fn count(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some(fault) if fault.at == number => {
                self.failed = Some(self.happened.len());
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, happened: Happened) {
        apply(&mut self.bytes, &happened);
        self.happened.push(happened);
    }
}

/// Does to bytes what happened to a disk.
pub(crate) fn apply(bytes: &mut Vec<u8>, happened: &Happened) {
    match happened {
        Happened::Written(offset, written) => bytes[*offset..offset + written.len()].copy_from_slice(written),
        Happened::Resized(len) => bytes.resize(*len, 0),
        Happened::Synced | Happened::Acknowledged(_) => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let mut state = self.state();
        state.count()?;
        let found = state
            .bytes
            .get(offset..offset + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate(Happened::Resized(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(Happened::Synced)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(Happened::Written(usize::try_from(offset).unwrap(), data.into()))
    }
}

/// A store on a disk.
pub(crate) fn open(disk: Disk) -> Result<(Store, Recovered), Error> {
    Store::with_engine(Redb::with_backend(disk, false)?, Options::default())
}
