//! `skep task tree`: a task with its parts, once or as it changes.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use skep::http::api::task::{Task, Tree};
use skep_rules::{id::TaskId, task::TaskState};

use super::{
    Context,
    task::{called, path},
};
use crate::{cli::Exit, client::Client, output::word};

/// How long a change stays unseen at most: less than people notice.
const GLANCE: Duration = Duration::from_millis(200);

/// A tree with one line per task.
pub(super) fn draw(tree: &Tree) -> String {
    let mut text = String::new();
    branch(tree, "", "", &mut text);
    text
}

fn branch(tree: &Tree, first: &str, rest: &str, text: &mut String) {
    text.push_str(&format!("{first}{}\n", line(&tree.task)));
    for (at, child) in tree.children.iter().enumerate() {
        let last = at + 1 == tree.children.len();
        let (fork, below) = if last { ("└ ", "  ") } else { ("├ ", "│ ") };
        branch(child, &format!("{rest}{fork}"), &format!("{rest}{below}"), text);
    }
}

fn line(task: &Task) -> String {
    let failure = task.failure.as_ref();
    let failure = failure.map(|failure| format!(" {}", failure.code)).unwrap_or_default();
    let lane = task
        .lane
        .as_ref()
        .map(|lane| format!("  lane {lane}"))
        .unwrap_or_default();
    let note = task
        .note
        .as_ref()
        .map(|note| format!("  from {note}"))
        .unwrap_or_default();
    let asks = task
        .approval
        .map(|approval| format!("  waits for {approval}"))
        .unwrap_or_default();
    let (name, state, id) = (called(task), word(&task.state), task.task_id);
    format!("{name}  {state}{failure}  {id}{lane}{note}{asks}")
}

/// Shows a tree until its task has ended: on a terminal it is drawn anew where it stands, elsewhere each change is a line.
pub(super) fn follow(context: &Context, client: &Client, mut tree: Tree) -> Result<Exit> {
    let path = path(&tree.task.task_id.to_string(), "/tree");
    let live = context.output.for_people() && context.output.shows_progress();
    let bar = match live {
        true => ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{msg}")?),
        false => ProgressBar::hidden(),
    };
    let mut known = BTreeMap::new();
    let tree = context.wait(async {
        loop {
            match live {
                true => bar.set_message(draw(&tree)),
                false => tell(context, &tree, &mut known)?,
            }
            if tree.task.state.is_ended() {
                return Ok(tree);
            }
            tokio::time::sleep(GLANCE).await;
            tree = client.get(&path).await?;
        }
    })?;
    bar.finish_and_clear();
    if live {
        context.output.one(&tree, || draw(&tree))?;
    }
    Ok(match tree.task.state {
        TaskState::Completed => Exit::Done,
        _ => Exit::TaskFailed,
    })
}

/// Prints the tasks that are new or have moved.
fn tell(context: &Context, tree: &Tree, known: &mut BTreeMap<TaskId, TaskState>) -> Result<()> {
    let task = &tree.task;
    if known.insert(task.task_id, task.state) != Some(task.state) {
        context.output.line(task, || line(task))?;
    }
    tree.children.iter().try_for_each(|child| tell(context, child, known))
}
