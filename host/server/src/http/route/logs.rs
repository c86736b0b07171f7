//! `/v1/logs`

use std::{collections::VecDeque, ops::Bound, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response, sse},
};
use serde::Deserialize;
use skep_rules::{
    id::{AgentId, CrewId, TaskId},
    limits::LOG_SCAN_PIECES,
    quantity::Time,
};
use skep_store::Range;

use super::{
    archive, blocking,
    stream::{self, Follow, Gone},
};
use crate::{
    driver::{Driver, Error},
    host::Shared,
    http::{
        api::{
            log::{self, Lines},
            problem::Problem,
        },
        extract::{self, Query, page_size},
        problem::{Answer, Refusal},
    },
    logs::{LINES, Line, Piece, Place, numbered, piece_of},
};

/// How often a stream about one task looks whether that has ended.
const LOOK: Duration = Duration::from_millis(500);
/// Pieces read from the disk at a time: 1 MiB.
const PIECES: usize = 16;

/// Which lines.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogQuery {
    /// Of one crew: id, unique prefix or name.
    crew: Option<String>,
    /// On one task: id or unique prefix.
    task: Option<String>,
    /// Of one agent: id or unique prefix.
    agent: Option<String>,
    /// At least so grave: `trace`, `debug`, `info`, `warn` or `error`. Standard output counts as `info`, standard error as `warn`.
    level: Option<Level>,
    /// On all tasks of a tree: the 32 digits of the objective's id.
    trace: Option<String>,
    /// Not before this time, in milliseconds since 1970.
    #[param(value_type = Option<u64>)]
    from: Option<Time>,
    /// Not after this time.
    #[param(value_type = Option<u64>)]
    until: Option<Time>,
    /// Older than this place; with `follow`, newer.
    after: Option<String>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
    /// Have lines told as they come, as server-sent events.
    #[serde(default)]
    follow: bool,
}

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    fn of(line: &Line) -> Level {
        match line.level.as_str() {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "warn" | "stderr" => Level::Warn,
            "error" => Level::Error,
            _ => Level::Info,
        }
    }
}

/// What a line must be.
#[derive(Debug, Clone, Default)]
struct Filter {
    crew: Option<CrewId>,
    task: Option<TaskId>,
    agent: Option<AgentId>,
    level: Option<Level>,
    trace: Option<TaskId>,
    from: Option<Time>,
    until: Option<Time>,
}

impl Filter {
    async fn of(driver: &Arc<Driver>, query: &LogQuery) -> Answer<Filter> {
        let task = match &query.task {
            Some(text) => Some(archive::resolve(driver, text).await?),
            None => None,
        };
        let trace = query.trace.as_ref().map(|digits| {
            let id = format!("{}{digits}", TaskId::PREFIX).parse::<TaskId>();
            id.map_err(|_| Refusal::invalid("`trace` is the 32 digits of a task's id"))
        });
        let trace = trace.transpose()?;
        let crew = |state: &skep_rules::state::State| {
            let crew = query.crew.as_deref();
            crew.map(|crew| extract::crew(state, Some(crew))).transpose()
        };
        let (crew, _) = driver.read(crew)?;
        let agent = |state: &skep_rules::state::State| {
            // One that has left memory is known by its whole id.
            let known = |text: &String| text.parse().or_else(|_| extract::agent(state, text));
            query.agent.as_ref().map(known).transpose()
        };
        let (agent, _) = driver.read(agent)?;
        Ok(Filter {
            crew: crew?,
            task,
            agent: agent?,
            level: query.level,
            trace,
            from: query.from,
            until: query.until,
        })
    }

    fn takes(&self, line: &Line) -> bool {
        fn is<T: PartialEq>(wanted: Option<T>, found: Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        is(self.crew, line.crew)
            && is(self.task, line.task)
            && is(self.agent, line.agent)
            && is(self.trace, line.trace)
            && self.level.is_none_or(|level| Level::of(line) >= level)
            && self.from.is_none_or(|from| line.at >= from)
            && self.until.is_none_or(|until| line.at <= until)
    }
}

/// Read the log: what agents write while they run, and what the host decides and refuses; or follow it.
///
/// The newest lines come first. The newest 256 MiB are kept. With `follow` the answer is a stream of what comes: behind `after` where that is given, else
/// from now. A stream about one task ends with an event `end` when the task has ended; one that falls too far behind ends with an event `gone`. A line
/// can be told before it is on the disk: it promises nothing.
#[utoipa::path(get, path = "/v1/logs", tag = "logs", params(LogQuery),
    responses((status = 200, description = "A page; with `follow`, `id: place` and `data: Line`", body = Lines),
        (status = 410, description = "The lines behind the place are not in memory any more", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(shared): State<Arc<Shared>>, Query(query): Query<LogQuery>) -> Answer<Response> {
    let driver = &shared.driver;
    let limit = page_size(query.limit)?;
    let after = match query.after.as_deref().map(parse) {
        Some(None) => return Err(Refusal::invalid("`after` is the place of a line")),
        place => place.flatten(),
    };
    let filter = Filter::of(driver, &query).await?;
    if query.follow {
        return follow(&shared, filter, after);
    }
    let page = blocking(driver, move |driver| page(driver, &filter, after, limit));
    Ok(Json(page.await?).into_response())
}

/// `piece.line`
fn parse(text: &str) -> Option<Place> {
    let (piece, line) = text.split_once('.')?;
    Some((piece.parse().ok()?, line.parse().ok()?))
}

fn shown((piece, line): Place) -> String {
    format!("{piece}.{line}")
}

/// The newest lines before a place.
fn page(driver: &Driver, filter: &Filter, before: Option<Place>, limit: usize) -> Result<Lines, Error> {
    let newest = driver.logs.newest();
    let mut lines = Lines {
        items: Vec::new(),
        next: None,
        newest: shown(newest),
        dropped: driver.logs.dropped(),
    };
    let mut pieces = Pieces::until(driver, before, filter.until)?;
    let mut looked = 0;
    while let Some((number, piece)) = pieces.next(driver)? {
        for (place, line) in numbered(number, &piece).rev() {
            if before.is_some_and(|before| place >= before) || !filter.takes(line) {
                continue;
            }
            if lines.items.len() == limit {
                lines.next = lines.items.last().map(|last| last.place.clone());
                return Ok(lines);
            }
            lines.items.push(line_of(place, line));
        }
        // Lines lie in the order in which they came; one may have been written a little earlier.
        let older = |from: Time| piece.lines.iter().all(|line| line.at < from);
        if filter.from.is_some_and(older) {
            return Ok(lines);
        }
        looked += 1;
        if looked == LOG_SCAN_PIECES && number > 1 {
            lines.next = Some(shown((number, 0)));
            return Ok(lines);
        }
    }
    Ok(lines)
}

/// Pieces from the newest down: those in memory, and then rows.
struct Pieces {
    /// The next one has at most this number.
    next: u64,
    rows: VecDeque<(u64, Piece)>,
}

impl Pieces {
    /// Those that may hold lines before a place and not after a time.
    fn until(driver: &Driver, before: Option<Place>, until: Option<Time>) -> Result<Pieces, Error> {
        let newest = driver.logs.newest().0;
        let mut high = before.map_or(newest, |(piece, _)| piece.min(newest));
        let mut pieces = Pieces {
            next: high,
            rows: VecDeque::new(),
        };
        let Some(until) = until else {
            return Ok(pieces);
        };
        // The last piece that begins before the time: what is behind it was written later.
        let mut low = 0;
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let begins = match driver.logs.piece(middle) {
                Some(piece) => piece.lines.first().map(|line| line.at),
                None => row(driver, middle)?.and_then(|piece| piece.lines.first().map(|line| line.at)),
            };
            match begins {
                Some(begins) if begins > until => high = middle - 1,
                // One that is gone is older than all that are there.
                _ => low = middle,
            }
        }
        // Lines of several attempts overlap by less than a piece.
        pieces.next = pieces.next.min(high + 1);
        Ok(pieces)
    }

    fn next(&mut self, driver: &Driver) -> Result<Option<(u64, Arc<Piece>)>, Error> {
        if let Some(piece) = driver.logs.piece(self.next) {
            let number = self.next;
            self.next = number.saturating_sub(1);
            return Ok(Some((number, piece)));
        }
        if self.rows.is_empty() && self.next > 0 {
            let range = Range {
                start: Bound::Unbounded,
                end: Bound::Included(self.next.to_be_bytes().to_vec()),
                reverse: true,
            };
            for (key, row) in driver.store.scan(LINES, &range, PIECES)? {
                let number = key.first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
                self.rows.push_back((number, piece_of(&row)?));
            }
        }
        let found = self.rows.pop_front();
        self.next = found.as_ref().map_or(0, |(number, _)| number.saturating_sub(1));
        Ok(found.map(|(number, piece)| (number, Arc::new(piece))))
    }
}

fn row(driver: &Driver, number: u64) -> Result<Option<Piece>, Error> {
    let row = driver.store.get(LINES, &number.to_be_bytes())?;
    row.map(|row| piece_of(&row)).transpose()
}

fn line_of(place: Place, line: &Line) -> log::Line {
    let digits = |id: TaskId| id.to_string().trim_start_matches(TaskId::PREFIX).to_owned();
    log::Line {
        place: shown(place),
        at: line.at,
        level: line.level.clone(),
        message: line.message.clone(),
        fields: line.fields.clone(),
        crew: line.crew,
        task: line.task,
        attempt: line.attempt,
        agent: line.agent,
        trace: line.trace.map(digits),
    }
}

fn follow(shared: &Arc<Shared>, filter: Filter, after: Option<Place>) -> Answer<Response> {
    let logs = &shared.driver.logs;
    let place = after.unwrap_or_else(|| logs.newest());
    let gone = "the lines behind this place are not in memory any more; read pages and follow from `newest`";
    Ok(stream::begin(shared, logs.watch(), place, filter, gone)?.into_response())
}

/// Lines as they come; about one task, to its end.
impl Follow for Filter {
    type Item = Line;

    fn read(&mut self, driver: &Driver, after: Place) -> Result<Vec<(Place, Line)>, Gone> {
        driver.logs.read(after).map_err(|_| Gone)
    }

    fn tell(&self, _: &Driver, place: Place, line: Line) -> Option<sse::Event> {
        let data = || serde_json::to_string(&line_of(place, &line)).expect("a line is made of texts and numbers");
        self.takes(&line)
            .then(|| sse::Event::default().event("line").data(data()))
    }

    fn look(&self) -> Option<Duration> {
        self.task.map(|_| LOOK)
    }

    fn has_ended(&self, driver: &Driver) -> bool {
        let Some(task) = self.task else { return false };
        let ended = driver.read(|state| state.task(task).is_none_or(|task| task.state.is_ended()));
        ended.is_ok_and(|(ended, _)| ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_piece_and_a_line() {
        assert_eq!((parse("7.2"), shown((7, 2)).as_str()), (Some((7, 2)), "7.2"));
        for bad in ["", "7", "7.", ".2", "7.x", "-1.2", "7.2.1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_filter_takes_what_is_as_grave_and_in_time() {
        let line = |level: &str, at| Line {
            at: Time(at),
            level: level.to_owned(),
            message: String::new(),
            fields: Vec::new(),
            crew: None,
            task: Some(TaskId::new(1 << 16, 0)),
            attempt: None,
            agent: None,
            trace: None,
        };
        let filter = Filter {
            level: Some(Level::Warn),
            from: Some(Time(5)),
            until: Some(Time(7)),
            ..Filter::default()
        };
        let cases = [
            ("warn", 5, true),
            ("stderr", 7, true),
            ("error", 6, true),
            ("info", 6, false),
            ("stdout", 6, false),
            ("error", 4, false),
            ("error", 8, false),
        ];
        for (level, at, taken) in cases {
            assert_eq!(filter.takes(&line(level, at)), taken, "{level} {at}");
        }
        let other = Filter {
            task: Some(TaskId::new(2 << 16, 0)),
            ..Filter::default()
        };
        assert!(!other.takes(&line("error", 6)));
        let nobody = Filter {
            agent: Some(AgentId::new(1 << 16, 0)),
            ..Filter::default()
        };
        assert!(!nobody.takes(&line("error", 6)), "what no agent wrote is no agent's");
    }
}
