//! Tasks wherever they are: the live ones in the shard, the ended ones in their table, and ephemeral ones for a while in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    pin::Pin,
    sync::Arc,
};

use skep_rules::{id::TaskId, quantity::Millis, state::State, task::Task};
use skep_store::{Position, Range};

use super::blocking;
use crate::{
    driver::{Driver, Error, TASKS, decode},
    http::{
        api::{self, Page},
        extract::{self, Prefix},
        problem::{Answer, Refusal},
    },
    read,
};

/// Archived rows that one page may read past because they do not match.
const SCAN_BUDGET: usize = 2_000;
/// Archived rows read at a time.
const SCAN_PAGE: usize = 200;

/// A task, live or archived, and the position that must be durable before anybody is told.
pub(super) fn fetch(driver: &Driver, id: TaskId) -> Result<Option<(Task, Position)>, Error> {
    let (known, position) = driver.read(|state| state.task(id).cloned().or_else(|| state.recent(id)))?;
    if let Some(task) = known {
        return Ok(Some((task, position)));
    }
    let Some(task) = driver.row(TASKS, &id.to_bytes())? else {
        return Ok(None);
    };
    // It may have been archived after the state was read.
    let ((), position) = driver.read(|_| ())?;
    Ok(Some((task, position)))
}

/// A task when it has ended or waits for a person, or as it is when the timer fires or the host stops.
pub(super) async fn ended(
    driver: &Driver,
    id: TaskId,
    wait: Millis,
    mut timer: Pin<&mut tokio::time::Sleep>,
) -> Answer<Task> {
    if wait > Millis(0) {
        let mut end = driver.wait_for(id);
        // The person whom it waits for may be waiting here.
        let moves = |task: &Task| !task.state.is_ended() && !task.state.waits_for_person();
        let lives = |state: &State| state.task(id).is_some_and(moves);
        let (lives, _) = driver.read(lives)?;
        let told = if lives {
            tokio::select! {
                told = &mut end => told.ok().flatten(),
                () = timer.as_mut() => None,
                () = driver.stopping.cancelled() => None,
                () = driver.failed.cancelled() => None,
            }
        } else {
            None
        };
        if let Some(row) = told {
            // It was told because it is durable.
            return Ok(decode(&row)?);
        }
        drop(end);
        driver.stop_waiting(id);
    }
    let (task, position) = fetch(driver, id)?.ok_or_else(|| Refusal::not_found(id))?;
    driver.store.wait(position).await?;
    Ok(task)
}

/// The task that an id or a unique prefix means.
pub(super) async fn resolve(driver: &Arc<Driver>, text: &str) -> Answer<TaskId> {
    let range: Prefix<TaskId> = extract::prefix(text, TaskId::PREFIX)?;
    if range.first == range.last {
        return Ok(range.first);
    }
    let what = format!("task `{text}`");
    let found = blocking(driver, move |driver| {
        let (mut found, _) = driver.read(|state| extract::known_tasks(state, &range))?;
        let archived = Range {
            start: Bound::Included(range.first.to_bytes().to_vec()),
            end: Bound::Included(range.last.to_bytes().to_vec()),
            reverse: false,
        };
        for (_, row) in driver.store.scan(TASKS, &archived, 2)? {
            found.push(decode::<Task>(&row)?.id);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    });
    Ok(extract::only(found.await?.into_iter(), what)?)
}

/// Live tasks first, then the archive: one that moves in between is seen twice, never missed. Ephemeral tasks that have ended are not listed.
pub(super) fn page(
    driver: &Driver,
    after: Option<TaskId>,
    limit: usize,
    matches: &mut dyn FnMut(&Task) -> Result<bool, Error>,
) -> Result<(Page<api::task::Task>, Position), Error> {
    let before = |id: TaskId| after.is_none_or(|after| id < after);
    let (live, _) = driver.read(|state| {
        let mut newest = VecDeque::with_capacity(limit + 2);
        for task in state.tasks().filter(|task| before(task.id)) {
            if !matches(task)? {
                continue;
            }
            newest.push_back(task);
            if newest.len() > limit + 1 {
                newest.pop_front();
            }
        }
        Ok::<_, Error>(newest.into_iter().cloned().collect::<Vec<Task>>())
    })?;
    let mut found: BTreeMap<TaskId, Task> = live?.into_iter().map(|task| (task.id, task)).collect();

    let mut range = Range::all().reversed();
    if let Some(after) = after {
        range = range.before(&after.to_bytes());
    }
    // Where the archive was read down to, if it was not read to its end.
    let mut floor = None;
    let (mut scanned, mut archived) = (0, 0);
    while archived <= limit {
        let rows = driver.store.scan(TASKS, &range, SCAN_PAGE)?;
        let Some((last, _)) = rows.last() else {
            floor = None;
            break;
        };
        range = range.before(last);
        scanned += rows.len();
        let full = rows.len() == SCAN_PAGE;
        for (_, row) in rows {
            let task: Task = decode(&row)?;
            floor = Some(task.id);
            if matches(&task)? {
                archived += 1;
                found.insert(task.id, task);
            }
        }
        if !full {
            floor = None;
            break;
        }
        if scanned >= SCAN_BUDGET {
            break;
        }
    }
    let seen = found
        .into_values()
        .rev()
        .filter(|task| floor.is_none_or(|floor| task.id >= floor));
    let mut items: Vec<_> = seen.take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(|task| task.id) } else { floor };
    let page = Page {
        next: next.map(|id| id.to_string()),
        items: items.into_iter().map(read::task).collect(),
    };
    // Read last: everything seen was decided before.
    let ((), position) = driver.read(|_| ())?;
    Ok((page, position))
}

/// A task and everything beneath it.
pub(super) fn records(driver: &Driver, id: TaskId) -> Result<(BTreeMap<TaskId, Task>, Position), Error> {
    // Together results could be hundreds of MiB.
    let without_result = |mut task: Task| {
        task.result = None;
        task
    };
    let mut tasks: BTreeMap<TaskId, Task> = driver
        .read(|state| {
            state
                .tree(id)
                .into_iter()
                .map(|task| (task.id, without_result(task.clone())))
                .collect()
        })?
        .0;
    // What is not live has ended; the tree is bounded by the plan limits.
    let mut wanted = vec![id];
    while let Some(id) = wanted.pop() {
        if !tasks.contains_key(&id)
            && let Some((task, _)) = fetch(driver, id)?
        {
            tasks.insert(id, without_result(task));
        }
        wanted.extend(
            tasks
                .get(&id)
                .into_iter()
                .flat_map(|task| task.children.iter().copied()),
        );
    }
    let ((), position) = driver.read(|_| ())?;
    Ok((tasks, position))
}

/// A task with its parts, without results.
pub(super) fn tree(driver: &Driver, id: TaskId) -> Result<(Option<api::task::Tree>, Position), Error> {
    let (mut tasks, position) = records(driver, id)?;
    Ok((grow(&mut tasks, id), position))
}

/// Recursion is bounded by the depth of tasks.
fn grow(tasks: &mut BTreeMap<TaskId, Task>, id: TaskId) -> Option<api::task::Tree> {
    let task = tasks.remove(&id)?;
    let children = task.children.clone();
    Some(api::task::Tree {
        task: read::task(task),
        children: children.into_iter().filter_map(|child| grow(tasks, child)).collect(),
    })
}
