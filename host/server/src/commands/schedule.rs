//! `skep schedule`: has tasks submitted again and again.

use std::time::Duration;

use anyhow::Result;
use skep::http::api::schedule::{NewSchedule, Schedule, When};
use skep_rules::{
    id::Name,
    quantity::{Millis, Time},
    schedule::{self, Missed},
};

use super::{Context, task};
use crate::{
    cli::Exit,
    client::escape,
    failure::Failure,
    output::{duration, time, word},
};

/// `skep schedule …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Have a task submitted again and again
    Create(Box<Create>),
    /// List schedules
    Ls {
        /// Only those of the crew of this name
        #[arg(long)]
        crew: Option<Name>,
    },
    /// Show one
    Show(Named),
    /// Submit it no more; what it has submitted goes on
    Delete(Named),
}

/// Arguments of `skep schedule create`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("wait", |arg| arg.hide(true)), mut_arg("ephemeral", |arg| arg.hide(true)), mut_arg("dependencies", |arg| arg.hide(true)))]
pub(crate) struct Create {
    /// Its name, the only one of its crew
    name: Name,
    #[command(flatten)]
    when: Due,
    /// What becomes of due times that passed while the host was down or the crew drained: none of them, the last, or each is made up for
    #[arg(long, value_name = "skip|one|all", default_value = "one", value_parser = missed)]
    missed: Missed,
    /// With --cron, the time zone whose clock it goes by
    #[arg(long, value_name = "ZONE", requires = "cron")]
    zone: Option<String>,
    /// With --every, the first time; one interval from now unless said
    #[arg(long, value_name = "TIME", value_parser = schedule::time, requires = "every")]
    first: Option<Time>,
    #[command(flatten)]
    task: task::Submit,
}

/// When it is due.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Due {
    /// By a cron pattern: minute, hour, day of the month, month, day of the week (`0 3 * * MON-FRI`)
    #[arg(long, value_name = "PATTERN")]
    cron: Option<String>,
    /// So often (`15min`)
    #[arg(long, value_name = "DURATION")]
    every: Option<Millis>,
    /// Once (`2027-01-31T09:00:00Z`)
    #[arg(long, value_name = "TIME", value_parser = schedule::time)]
    at: Option<Time>,
}

/// A schedule of a host.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Its name
    name: String,
    /// Its crew, which need not live any more; may be left out where the name is the only one
    #[arg(long)]
    crew: Option<String>,
}

impl Named {
    fn path(&self) -> String {
        let crew = self.crew.as_ref().map(|crew| format!("?crew={}", escape(crew)));
        format!("/v1/schedules/{}{}", escape(&self.name), crew.unwrap_or_default())
    }
}

fn missed(text: &str) -> Result<Missed, String> {
    match text {
        "skip" => Ok(Missed::Skip),
        "one" => Ok(Missed::One),
        "all" => Ok(Missed::All),
        _ => Err("it is `skip`, `one` or `all`".to_owned()),
    }
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    match command {
        Command::Create(args) => {
            let schedule = new_schedule(args)?;
            let client = context.client()?;
            let made: Schedule = context.wait(client.post("/v1/schedules", &schedule, Duration::ZERO))?;
            context.output.one(&made, || describe(&made))?;
        }
        Command::Ls { crew } => {
            let client = context.client()?;
            let query = crew.as_ref().map(|crew| format!("?crew={crew}")).unwrap_or_default();
            let schedules: Vec<Schedule> = context.wait(client.list(&format!("/v1/schedules{query}")))?;
            let heads = ["schedule", "crew", "when", "missed", "next", "fired", "last"];
            context.output.list(&schedules, heads, |schedule| {
                [
                    schedule.name.to_string(),
                    schedule.crew.to_string(),
                    when(&schedule.when),
                    word(&schedule.missed),
                    next(schedule),
                    schedule.fired.to_string(),
                    last(schedule),
                ]
            })?;
        }
        Command::Show(named) => {
            let client = context.client()?;
            let schedule: Schedule = context.wait(client.get(&named.path()))?;
            context.output.one(&schedule, || describe(&schedule))?;
        }
        Command::Delete(named) => {
            let client = context.client()?;
            let schedule: Schedule = context.wait(client.delete(&named.path()))?;
            context
                .output
                .one(&schedule, || format!("{}  deleted", schedule.name))?;
        }
    }
    Ok(Exit::Done)
}

fn new_schedule(args: &Create) -> Result<NewSchedule> {
    if args.task.waits() {
        let message = "--wait: there is nothing to wait for yet";
        return Err(Failure::new(Exit::Usage, message)
            .next("`skep schedule show` tells the last task")
            .into());
    }
    let mut task = task::new_task(&args.task)?;
    let crew = task.crew.take();
    Ok(NewSchedule {
        name: args.name.clone(),
        crew,
        cron: args.when.cron.clone(),
        zone: args.zone.clone(),
        every: args.when.every,
        first: args.first,
        at: args.when.at,
        missed: args.missed,
        task,
    })
}

fn when(when: &When) -> String {
    match (&when.cron, &when.zone, when.every, when.at) {
        (Some(pattern), zone, ..) => format!("{pattern} {}", zone.as_deref().unwrap_or("UTC")),
        (_, _, Some(every), _) => format!("every {every}"),
        (.., Some(at)) => format!("at {}", time(at)),
        _ => String::new(),
    }
}

fn next(schedule: &Schedule) -> String {
    match schedule.resting {
        true => "rests: no such crew".to_owned(),
        false => time(schedule.next),
    }
}

fn last(schedule: &Schedule) -> String {
    schedule
        .last
        .as_ref()
        .map_or_else(String::new, |last| match (&last.task, &last.failure) {
            (Some(task), _) => task.to_string(),
            (_, Some(failure)) => failure.code.to_string(),
            _ => String::new(),
        })
}

fn describe(schedule: &Schedule) -> String {
    let mut lines = vec![
        ("schedule", schedule.name.to_string()),
        ("crew", schedule.crew.to_string()),
        ("what", schedule.description.clone()),
        ("when", when(&schedule.when)),
        ("missed", word(&schedule.missed)),
        ("next", next(schedule)),
        ("fired", schedule.fired.to_string()),
    ];
    if let Some(last) = &schedule.last {
        let late = duration(last.at.since(last.due).0);
        lines.push(("last", format!("{}, {late} late", time(last.due))));
        lines.extend(last.task.map(|task| ("", task.to_string())));
        let failure = last.failure.as_ref();
        lines.extend(failure.map(|failure| ("failure", format!("{}: {}", failure.code, failure.message))));
    }
    if let Some(passed) = &schedule.passed {
        let text = format!("from {} to before {}", time(passed.first), time(passed.before));
        lines.push(("passed over", text));
    }
    lines.iter().map(|(key, value)| format!("{key:<12}{value}\n")).collect()
}
