//! `skep approval`: what people are asked, and what they say.

use anyhow::Result;
use skep::http::api::{
    approval::{Approval, Decide, Decision, Item},
    task::Task,
};
use skep_rules::{
    approval::Point,
    id::{ApprovalId, Digest},
};

use super::Context;
use crate::{
    cli::Exit,
    client::{Client, escape},
    failure::Failure,
    output::{time, word},
};

/// `skep approval …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List what is not decided, the oldest first
    Ls {
        /// Only those of this crew: id, its beginning, or name
        #[arg(long)]
        crew: Option<String>,
    },
    /// Show one, with what a decision is bound to
    Show {
        /// Id; its beginning where it is open
        approval: String,
    },
    /// Say yes; to a blocker, give the answer as the remark
    Approve(Ruling),
    /// Say no
    Reject(Ruling),
}

/// Arguments of `skep approval {approve,reject}`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ruling {
    /// Id; its beginning where it is open
    approval: String,
    /// Only this item; give several for several of them
    #[arg(long = "item", value_name = "NAME")]
    items: Vec<String>,
    /// For the agent and the record; to a blocker, the answer
    #[arg(long, default_value = "", value_name = "TEXT")]
    remark: String,
    /// Approve the same action for the rest of the run
    #[arg(long)]
    always: bool,
    /// Decide only what has this digest, as `show` and `ls -o json` tell it
    #[arg(long, value_name = "SHA256")]
    digest: Option<Digest>,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    let client = context.client()?;
    match command {
        Command::Ls { crew } => {
            let crew = crew
                .as_ref()
                .map(|crew| format!("crew={}", escape(crew)))
                .unwrap_or_default();
            let (open, paused) = context.wait(async {
                let open: Vec<Approval> = client.list(&format!("/v1/approvals?{crew}")).await?;
                let paused: Vec<Task> = client.first(&format!("/v1/tasks?state=PAUSED&{crew}"), 100).await?;
                Ok((open, paused.len()))
            })?;
            context
                .output
                .list(&open, ["approval", "what", "expires", "task", "question"], |approval| {
                    [
                        approval.approval_id.to_string(),
                        what(approval),
                        time(approval.expires_at),
                        approval.task.to_string(),
                        approval.question.clone(),
                    ]
                })?;
            // What has failed for good, or was paused, waits for a person as well, who is not asked a question.
            if paused > 0 {
                let many = if paused == 100 {
                    "100 or more".to_owned()
                } else {
                    paused.to_string()
                };
                let note = format!(
                    "{many} paused, to be retried, resumed, overridden or cancelled: skep task ls --state paused"
                );
                context.output.note(&note);
            }
        }
        Command::Show { approval } => {
            let approval = context.wait(find(&client, approval))?;
            context.output.one(&approval, || describe(&approval))?;
        }
        Command::Approve(ruling) => decide(context, &client, ruling, Decision::Approve)?,
        Command::Reject(ruling) => decide(context, &client, ruling, Decision::Reject)?,
    }
    Ok(Exit::Done)
}

/// What was found is what is decided: its digest goes along, unless a person has given one.
fn decide(context: &Context, client: &Client, ruling: &Ruling, decision: Decision) -> Result<()> {
    let decided = context.wait(async {
        let found = find(client, &ruling.approval).await?;
        let decide = Decide {
            approval_id: found.approval_id,
            decision,
            items: ruling.items.clone(),
            remark: ruling.remark.clone(),
            always: ruling.always,
            digest: Some(ruling.digest.unwrap_or(found.digest)),
        };
        client
            .post::<Approval>("/v1/approvals", &decide, std::time::Duration::ZERO)
            .await
    })?;
    context.output.one(&decided, || describe(&decided))
}

/// The approval of an id, or the open one whose id begins so.
async fn find(client: &Client, text: &str) -> Result<Approval> {
    if text.parse::<ApprovalId>().is_ok() {
        return client.get(&format!("/v1/approvals/{text}")).await;
    }
    let open: Vec<Approval> = client.list("/v1/approvals").await?;
    let begins = |approval: &Approval| approval.approval_id.to_string().starts_with(text);
    let mut found = open.into_iter().filter(begins);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(
            Failure::new(Exit::NotFound, format!("no open approval begins with `{text}`"))
                .next("`skep approval ls` lists them; one that is over needs its whole id")
                .into(),
        ),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "more than one open approval begins with `{text}`; give more digits"
        ))
        .into()),
    }
}

/// What would be done, in few words.
fn what(approval: &Approval) -> String {
    match approval.point {
        Point::Before => "run the task".to_owned(),
        Point::After => "accept the result".to_owned(),
        Point::Blocker => "answer".to_owned(),
        Point::Action => format!("{} ({})", approval.action, approval.items.len()),
    }
}

fn describe(approval: &Approval) -> String {
    let mut lines = vec![
        ("approval", approval.approval_id.to_string()),
        ("what", what(approval)),
        ("question", approval.question.clone()),
    ];
    if approval.point != Point::Blocker {
        lines.extend(approval.items.iter().map(|item| ("item", shown(item))));
    }
    lines.extend([
        ("asked by", approval.requester.clone()),
        ("task", approval.task.to_string()),
        ("crew", approval.crew.to_string()),
    ]);
    lines.extend(
        approval
            .component
            .map(|digest| ("component", format!("sha256:{digest}"))),
    );
    lines.extend([
        ("bound to", format!("sha256:{}", approval.digest)),
        ("asked", time(approval.asked_at)),
        (
            "expires",
            format!("{}, then {}", time(approval.expires_at), word(&approval.on_timeout)),
        ),
    ]);
    for item in &approval.items {
        lines.extend(item.verdict.as_ref().map(|verdict| {
            let by = verdict.by.as_deref().unwrap_or("nobody");
            let how = if verdict.approved { "approved" } else { "rejected" };
            let always = if verdict.always { ", for the whole run" } else { "" };
            let text = format!(
                "{} {how} by {by} at {}{always}: {}",
                item.name,
                time(verdict.at),
                verdict.remark
            );
            ("decided", text.trim_end_matches(": ").to_owned())
        }));
    }
    lines.push((
        "state",
        approval.settled.as_ref().map_or_else(|| "open".to_owned(), word),
    ));
    // A text of an agent is one line: it cannot pass for a line of this sheet.
    let one_line = |text: &str| text.replace('\n', " ⏎ ");
    lines
        .iter()
        .map(|(key, value)| format!("{key:<12}{}\n", one_line(value)))
        .collect()
}

fn shown(item: &Item) -> String {
    let warning = if item.parsed {
        ""
    } else {
        "  (not JSON: read it closely)"
    };
    format!("{} {}{warning}", item.name, item.arguments)
}
