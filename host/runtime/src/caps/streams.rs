//! `wasi:io`: errors, pollables and streams, which the other interfaces hand out. Needs no grant. The streams do the work; here every call is
//! counted and passed on, because a guest that polls in a circle costs host time and no fuel.

use std::collections::BTreeSet;

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};
use wasmtime_wasi_io::bindings::wasi::io::{error, poll, streams};

use super::{
    base::{Base, Get, HasBase},
    stepped::Stepped,
};

/// What one entry of a poll list counts as, in bytes moved: sixteen are the price of a call.
const POLL_ENTRY: u64 = 1 << 10;

/// Links `wasi:io`.
///
/// # Errors
/// When the linker holds one of the interfaces already.
pub(super) fn link<T: Send + 'static>(linker: &mut Linker<T>, get: Get<T>) -> wasmtime::Result<()> {
    error::add_to_linker::<T, HasBase>(linker, get)?;
    poll::add_to_linker::<T, HasBase>(linker, get)?;
    streams::add_to_linker::<T, HasBase>(linker, get)?;
    let mut stepped = Stepped::new(linker, "wasi:io/poll@0.2.12", get);
    stepped.waiting("poll", move |data, (list,)| {
        Box::pin(async move { Ok((poll::Host::poll(get(data), list).await?,)) })
    })?;
    stepped.waiting("[method]pollable.block", move |data, (pollable,)| {
        Box::pin(async move { poll::HostPollable::block(get(data), pollable).await })
    })?;
    stepped.waiting("[method]pollable.ready", move |data, (pollable,)| {
        Box::pin(async move { Ok((poll::HostPollable::ready(get(data), pollable).await?,)) })
    })
}

impl Base {
    /// Counts one call on a stream.
    fn metered(&mut self, bytes: u64) -> StreamResult<()> {
        self.meter.charge(bytes).map_err(|stop| StreamError::Trap(stop.into()))
    }
}

impl error::Host for Base {}

impl error::HostError for Base {
    fn drop(&mut self, error: Resource<streams::Error>) -> wasmtime::Result<()> {
        error::HostError::drop(&mut self.table, error)
    }

    fn to_debug_string(&mut self, error: Resource<streams::Error>) -> wasmtime::Result<String> {
        self.meter.charge(0)?;
        // Only the message: a debug text would carry the host's own backtrace into the guest.
        Ok(self.table.get(&error)?.to_string())
    }
}

impl poll::Host for Base {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        let entries = u64::try_from(pollables.len()).unwrap_or(u64::MAX);
        self.meter.charge(entries.saturating_mul(POLL_ENTRY))?;
        // One entry of the table each, however often it is named.
        let count = pollables.iter().map(Resource::rep).collect::<BTreeSet<_>>().len();
        self.steps.poll(count, self.table.poll(pollables)).await
    }
}

impl poll::HostPollable for Base {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.meter.charge(0)?;
        self.steps.poll(1, self.table.block(pollable)).await
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.meter.charge(0)?;
        self.steps.look(self.table.ready(pollable)).await
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::drop(&mut self.table, pollable)
    }
}

impl streams::Host for Base {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        self.table.convert_stream_error(error)
    }
}

impl streams::HostOutputStream for Base {
    async fn drop(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        streams::HostOutputStream::drop(&mut self.table, stream).await
    }

    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        self.metered(0)?;
        self.table.check_write(stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.metered(length(&bytes))?;
        self.table.write(stream, bytes)
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        self.meter.charge(0)?;
        streams::HostOutputStream::subscribe(&mut self.table, stream)
    }

    async fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        self.metered(length(&bytes))?;
        let _waiting = self.meter.waiting();
        self.table.blocking_write_and_flush(stream, bytes).await
    }

    async fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        len: u64,
    ) -> StreamResult<()> {
        self.metered(len)?;
        let _waiting = self.meter.waiting();
        self.table.blocking_write_zeroes_and_flush(stream, len).await
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        self.metered(len)?;
        self.table.write_zeroes(stream, len)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        self.metered(0)?;
        self.table.flush(stream)
    }

    async fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        self.metered(0)?;
        let _waiting = self.meter.waiting();
        self.table.blocking_flush(stream).await
    }

    fn splice(
        &mut self,
        target: Resource<DynOutputStream>,
        source: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        self.metered(len.min(SPLICE))?;
        self.table.splice(target, source, len)
    }

    async fn blocking_splice(
        &mut self,
        target: Resource<DynOutputStream>,
        source: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        self.metered(len.min(SPLICE))?;
        let _waiting = self.meter.waiting();
        self.table.blocking_splice(target, source, len).await
    }
}

/// The most that one splice moves: what a stream permits at once.
const SPLICE: u64 = 64 << 10;

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl streams::HostInputStream for Base {
    async fn drop(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<()> {
        streams::HostInputStream::drop(&mut self.table, stream).await
    }

    fn read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        self.metered(len.min(SPLICE))?;
        self.table.read(stream, len)
    }

    async fn blocking_read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        self.metered(len.min(SPLICE))?;
        let _waiting = self.meter.waiting();
        self.table.blocking_read(stream, len).await
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        self.metered(len.min(SPLICE))?;
        self.table.skip(stream, len)
    }

    async fn blocking_skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        self.metered(len.min(SPLICE))?;
        let _waiting = self.meter.waiting();
        self.table.blocking_skip(stream, len).await
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        self.meter.charge(0)?;
        streams::HostInputStream::subscribe(&mut self.table, stream)
    }
}
