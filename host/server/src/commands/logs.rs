//! `skep logs`: what agents write while they run, and what the host decides and refuses.

use anyhow::Result;
use skep::http::api::log::{Line, Lines};
use skep_rules::{
    limits::MAX_PAGE,
    quantity::{Millis, Time},
    schedule,
};

use super::Context;
use crate::{
    cli::{Exit, Format},
    client::{Client, escape},
    output::time,
};

/// Lines of a task that are shown before it is followed.
const EARLIER: usize = 1_000;

/// `skep logs`
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only those of this crew: id, its beginning, or name
    #[arg(long)]
    crew: Option<String>,
    /// Only those on this task: id or its beginning
    #[arg(long)]
    task: Option<String>,
    /// Only those of this agent: id or its beginning
    #[arg(long)]
    agent: Option<String>,
    /// Only those at least so grave: `trace`, `debug`, `info`, `warn` or `error`
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// Only those of all tasks under this objective: the 32 digits of its id
    #[arg(long)]
    trace: Option<String>,
    /// Only those since then: a time, or how long ago (`2h`)
    #[arg(long, value_name = "TIME|DURATION", value_parser = since)]
    since: Option<Since>,
    /// Only those until then
    #[arg(long, value_name = "TIME", value_parser = schedule::time)]
    until: Option<Time>,
    /// So many of the newest
    #[arg(short = 'n', long, default_value = "100")]
    lines: usize,
    /// And then those that come, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

/// Since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    At(Time),
    Ago(Millis),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = text.parse() {
        return Ok(Since::Ago(ago));
    }
    schedule::time(text)
        .map(Since::At)
        .map_err(|expected| format!("{expected}, or as a duration (`2h`)"))
}

impl Args {
    fn path(&self) -> String {
        let from = self.since.map(|since| match since {
            Since::At(at) => at.0,
            Since::Ago(ago) => skep::clock::Clock::system().now().since(Time(ago.0)).0,
        });
        let pairs = [
            ("crew", self.crew.clone()),
            ("task", self.task.clone()),
            ("agent", self.agent.clone()),
            ("level", self.level.clone()),
            ("trace", self.trace.clone()),
            ("from", from.map(|from| from.to_string())),
            ("until", self.until.map(|until| until.0.to_string())),
        ];
        let pairs = pairs.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let query: Vec<String> = pairs.map(|(key, value)| format!("{key}={}", escape(value))).collect();
        format!("/v1/logs?{}", query.join("&"))
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let client = context.client()?;
    let path = args.path();
    let (lines, newest) = context.wait(newest(&client, &path, args.lines))?;
    if !args.follow && context.global.output == Format::Json {
        context.output.list(&lines, [], |_| [])?;
        return Ok(Exit::Done);
    }
    tell(context, &lines)?;
    if args.follow {
        context.wait(follow(context, &client, &path, &newest))?;
    }
    Ok(Exit::Done)
}

/// The lines of a task that there are, and those that come until it has ended.
pub(super) fn follow_task(context: &Context, task: &str) -> Result<Exit> {
    let args = Args {
        task: Some(task.to_owned()),
        lines: EARLIER,
        follow: true,
        ..Args::default()
    };
    run(context, &args)
}

/// The newest lines, the oldest of them first, and the place where the log ended.
async fn newest(client: &Client, path: &str, most: usize) -> Result<(Vec<Line>, String)> {
    let joint = |more: String| match path.ends_with('?') {
        true => format!("{path}{more}"),
        false => format!("{path}&{more}"),
    };
    let first: Lines = client.get(&joint(format!("limit={}", most.clamp(1, MAX_PAGE)))).await?;
    let (mut lines, mut next) = (first.items, first.next);
    while let Some(after) = next.filter(|_| lines.len() < most) {
        let page: Lines = client.get(&joint(format!("after={}", escape(&after)))).await?;
        lines.extend(page.items);
        next = page.next;
    }
    lines.truncate(most);
    lines.reverse();
    Ok((lines, first.newest))
}

async fn follow(context: &Context, client: &Client, path: &str, after: &str) -> Result<()> {
    let joint = if path.ends_with('?') { "" } else { "&" };
    let mut events = client
        .events(&format!("{path}{joint}follow=true&after={after}"))
        .await?;
    while let Some(line) = events.next::<Line>().await? {
        tell(context, &[line])?;
    }
    Ok(())
}

fn tell(context: &Context, lines: &[Line]) -> Result<()> {
    for line in lines {
        context.output.line(line, || shown(line))?;
    }
    Ok(())
}

fn shown(line: &Line) -> String {
    let fields = line.fields.iter().map(|(key, value)| format!(" {key}={value}"));
    let task = line.task.map(|task| task.to_string()).unwrap_or_default();
    let who = match line.attempt {
        Some(attempt) => format!("{task}#{attempt}"),
        None if task.is_empty() => "host".to_owned(),
        None => format!("{task} host"),
    };
    let (at, level) = (time(line.at), &line.level);
    format!("{at}  {level:<6} {who}  {}{}", line.message, fields.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        assert_eq!(since("2h"), Ok(Since::Ago(Millis(7_200_000))));
        assert_eq!(since("1970-01-01T00:00:05Z"), Ok(Since::At(Time(5_000))));
        assert_eq!(since("5000"), Ok(Since::At(Time(5_000))));
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn what_is_asked_is_in_the_query() {
        let args = Args {
            crew: Some("a b".to_owned()),
            level: Some("warn".to_owned()),
            since: Some(Since::At(Time(7))),
            ..Args::default()
        };
        assert_eq!(args.path(), "/v1/logs?crew=a%20b&level=warn&from=7");
        assert_eq!(Args::default().path(), "/v1/logs?");
    }
}
