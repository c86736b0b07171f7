//! Opens stores of the first format, whose rows had no seals: seals them, some at a time, before anybody reads. A crash in between leaves some rows
//! sealed and the head as it was, so the next start goes on.

use crate::audit::AUDIT;
use crate::engine::{Commit, Engine, HEAD, META};
use crate::frame::FRAMES;
use crate::record::{FORMAT, Head, format_of};
use crate::seal::{is_sealed, sealed};
use crate::{Error, Range};

/// Rows sealed in one transaction.
const AT_ONCE: usize = 1000;

/// Brings a store to the present format; does nothing to one that has it, or that is new.
///
/// # Errors
/// [`Error::Format`] for a format that nobody knows; [`Error::Damaged`]; those of the engine.
pub(crate) fn upgrade(engine: &dyn Engine) -> Result<(), Error> {
    let snapshot = engine.snapshot()?;
    let Some(before) = snapshot.get(META, HEAD)? else {
        return Ok(());
    };
    if format_of(&before)? != 1 {
        return Ok(());
    }
    for table in snapshot.tables()? {
        // Frames and audit rows are chained; the head comes last.
        if [FRAMES, AUDIT, META].contains(&table) {
            continue;
        }
        let mut range = Range::all();
        loop {
            let rows = snapshot.scan(table, &range, AT_ONCE)?;
            let Some((last, _)) = rows.last() else { break };
            range = Range::all().after(last);
            let open = rows.iter().filter(|(key, row)| !is_sealed(table, key, row));
            let open: Vec<_> = open.map(|(key, row)| (key, sealed(table, key, row))).collect();
            engine.commit(&Commit {
                expect: Some(&before),
                head: &before,
                erase: None,
                changes: vec![(
                    table,
                    open.iter()
                        .map(|(key, row)| (key.as_slice(), Some(row.as_slice())))
                        .collect(),
                )],
            })?;
        }
    }
    let head = Head {
        format: FORMAT,
        ..Head::unsealed(&before)?
    };
    engine.commit(&Commit {
        expect: Some(&before),
        head: &head.row(),
        ..Commit::default()
    })?;
    tracing::info!(format = FORMAT, "the store was brought to the present format");
    Ok(())
}
