//! Every operation of the disk fails once: the store fails for good, does nothing more to the disk, and what it had called
//! durable is there when it is opened again, whether the operating system kept what was not synced or not.

use skep_store::{Error, Range};

use crate::disk::{Disk, Fault, Happened, apply, open};
use crate::script::{STATE, Script, acknowledged, batch};

/// Enough for a checkpoint, and for values that take pages of their own.
const BATCHES: u64 = 45;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[test]
fn after_a_failed_operation_the_store_has_failed_and_what_was_acknowledged_is_there() {
    let script = Script::new(BATCHES);
    for errno in [EIO, ENOSPC] {
        let failed = (0..).take_while(|at| fail(&script, Fault { at: *at, errno })).count();
        assert!(failed > 300, "{failed} operations are too few to prove anything");
    }
}

/// Whether there was such an operation.
fn fail(script: &Script, fault: Fault) -> bool {
    let disk = Disk::default();
    disk.state().fault = Some(fault);
    // What fails while a store is being made leaves a file that has no name yet.
    let opened = open(disk.clone());
    let created = opened.is_ok();
    if let Ok((store, recovered)) = opened {
        drop(recovered);
        if let Err(error) = script.drive(&store, &disk) {
            assert!(matches!(error, Error::Failed { .. }), "{fault:?}: {error:?}");
            assert!(matches!(store.append(batch(0)), Err(Error::Failed { .. })), "{fault:?}");
            assert!(matches!(store.get(STATE, b"k"), Err(Error::Failed { .. })), "{fault:?}");
            assert!(
                matches!(store.scan(STATE, &Range::all(), 1), Err(Error::Failed { .. })),
                "{fault:?}"
            );
            assert!(matches!(store.flush(), Err(Error::Failed { .. })), "{fault:?}");
            assert!(matches!(store.close(), Err(Error::Failed { .. })), "{fault:?}");
        }
    }

    let state = disk.state();
    let Some(failed) = state.failed else {
        return false;
    };
    assert!(
        state.happened[failed..]
            .iter()
            .all(|event| matches!(event, Happened::Acknowledged(_))),
        "{fault:?}: the disk was used after it had failed: {:?}",
        &state.happened[failed..]
    );
    if !created {
        return true;
    }
    let acknowledged = acknowledged(&state.happened);
    let synced = state
        .happened
        .iter()
        .rposition(|event| matches!(event, Happened::Synced));
    let mut lost = Vec::new();
    for event in &state.happened[..synced.unwrap_or(0)] {
        apply(&mut lost, event);
    }
    script.check(
        Disk::holding(state.bytes.clone()),
        acknowledged,
        &format!("{fault:?}, all kept"),
    );
    script.check(
        Disk::holding(lost),
        acknowledged,
        &format!("{fault:?}, all lost that was not synced"),
    );
    true
}

#[test]
fn whoever_waits_for_a_failed_sync_hears_of_it() {
    let disk = Disk::default();
    let (store, _) = open(disk.clone()).unwrap();
    let sound = store.append(batch(0)).unwrap();
    store.wait_blocking(sound).unwrap();
    // Two syncs make a commit: this fails one of the next few operations.
    let at = disk.state().operations + 1;
    disk.state().fault = Some(Fault { at, errno: EIO });
    let mut progress = store.subscribe();
    let lost = store.append(batch(1)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(matches!(runtime.block_on(store.wait(lost)), Err(Error::Failed { .. })));
    assert!(matches!(store.wait_blocking(lost), Err(Error::Failed { .. })));
    assert!(runtime.block_on(progress.wait_for(|durable| *durable >= lost)).is_err());
    assert_eq!(store.durable(), sound);
}
