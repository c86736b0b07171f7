//! The report for people: one file that asks nothing of the network.

use crate::{
    gather::{Report, Section},
    words::{Escaped, bytes, count, duration, fuel, meaning, number, time},
};
use skep_scan::batch::{Count, Finding};
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// Nothing is loaded, sent or run, whatever a file name may hold.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Rows shown of each kind of finding: what a browser scrolls with ease. The JSON report holds more.
const MAX_ROWS: usize = 500;

/// Rows shown of the shorter tables.
const MAX_SHORT_ROWS: usize = 100;

/// Chips shown of licences in use.
const MAX_CHIPS: usize = 24;

/// A straw hive.
const LOGO: &str = r#"<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 2c3 0 5 1.3 5.8 3H6.2C7 3.3 9 2 12 2zM5.5 6.5h13c.5.8.8 1.6 1 2.5h-15c.2-.9.5-1.7 1-2.5zM4.2 10.5h15.6c.1.8.2 1.7.2 2.5H4c0-.8.1-1.7.2-2.5zM3.7 14.5h16.6l.2 2.5h-5.6a3 3 0 0 0-5.8 0H3.5zM3.3 18.5H9V21H3.1zm11.7 0h5.7l.2 2.5H15z"/></svg>"#;

/// A page under construction.
#[derive(Default)]
struct Page {
    html: String,
}

impl Page {
    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        let written = self.html.write_fmt(text);
        debug_assert!(written.is_ok(), "a string takes what is written to it");
    }
}

macro_rules! push {
    ($page:expr, $($text:tt)*) => { $page.push(format_args!($($text)*)) };
}

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let mut page = Page::default();
    let root = Escaped(report.root());
    push!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
    );
    push!(
        page,
        "<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">"
    );
    push!(
        page,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"referrer\" content=\"no-referrer\">"
    );
    push!(
        page,
        "<title>Audit of {root}</title><style>{STYLE}</style></head><body><main>\n"
    );
    push!(
        page,
        "<header>{LOGO}<div><h1>Audit report</h1><p class=\"mono\">{root}</p>"
    );
    push!(
        page,
        "<p class=\"soft\">{}</p></div></header>\n",
        time(report.facts.now_ms)
    );
    tiles(&mut page, report);
    warnings(&mut page, report);
    denied(&mut page, report);
    let sections = [
        (
            "Secrets",
            "secret",
            "Credentials in text files. Values are masked; treat each as exposed until it is rotated.",
            &report.secrets,
        ),
        (
            "Licences",
            "license",
            "License tags, licence files, and source files without either.",
            &report.licenses,
        ),
        (
            "Unfinished work",
            "todo",
            "TODO, FIXME, HACK and XXX in comments.",
            &report.todos,
        ),
    ];
    for (title, class, about, section) in sections {
        findings(&mut page, report, title, class, about, section);
    }
    languages(&mut page, report);
    agents(&mut page, report);
    push!(
        page,
        "<footer>Made by a crew of sandboxed agents on Skep. This file loads nothing and runs nothing.</footer>\n</main></body></html>\n"
    );
    page.html
}

fn tiles(page: &mut Page, report: &Report) {
    let refused = u64::try_from(report.facts.distinct().len()).unwrap_or(u64::MAX);
    let secrets = report.secrets.total();
    let tiles = [
        ("", number(report.input.files), "files"),
        ("", bytes(report.input.bytes), "read"),
        (if secrets > 0 { "alarm" } else { "good" }, number(secrets), "secrets"),
        ("", number(report.licenses.total()), "licence findings"),
        ("", number(report.todos.total()), "to-do markers"),
        ("good", number(refused), "denied attempts"),
        ("", duration(report.duration_ms()), "duration"),
    ];
    push!(page, "<div class=\"tiles\">");
    for (class, value, label) in tiles {
        push!(
            page,
            "<div class=\"tile {class}\"><b>{value}</b><span>{label}</span></div>"
        );
    }
    push!(page, "</div>\n");
}

/// What the reader must know before trusting the numbers.
fn warnings(page: &mut Page, report: &Report) {
    if report.missing_scans > 0 {
        push!(
            page,
            "<p class=\"warn\">{} gave no result: what they would have found is missing here.</p>\n",
            count(report.missing_scans, "scan")
        );
    }
    if report.input.unreadable > 0 {
        push!(
            page,
            "<p class=\"warn\">{} could not be read.</p>\n",
            count(report.input.unreadable, "entry").replace("entrys", "entries")
        );
    }
}

fn denied(page: &mut Page, report: &Report) {
    let denied = &report.facts.denied;
    if denied.is_empty() {
        return;
    }
    push!(page, "<section><div class=\"head\"><h2>Contained attempts</h2>");
    push!(
        page,
        "<p>What agents tried beyond their grants, and why it did not work.</p></div>"
    );
    push!(
        page,
        "<table class=\"stack\"><thead><tr><th>Attempt<th>Reason<th>What it means</tr></thead><tbody>\n"
    );
    for denied in denied.iter().take(MAX_SHORT_ROWS) {
        push!(
            page,
            "<tr><td><b>{}</b><br><span class=\"soft\">{}",
            Escaped(&denied.attempt),
            Escaped(&denied.agent)
        );
        if !denied.detail.is_empty() {
            push!(page, " · <code>{}</code>", Escaped(cut(&denied.detail)));
        }
        push!(
            page,
            "</span><td><span class=\"tag denied\">{}</span><td>{}</tr>\n",
            Escaped(&denied.code),
            meaning(&denied.code)
        );
    }
    push!(page, "</tbody></table>");
    more(page, denied.len(), MAX_SHORT_ROWS, "attempts");
    push!(page, "</section>\n");
}

fn findings(page: &mut Page, report: &Report, title: &str, class: &str, about: &str, section: &Section) {
    push!(
        page,
        "<section><div class=\"head\"><h2>{title} <span class=\"soft\">{}</span></h2>",
        number(section.total())
    );
    push!(page, "<p>{about}</p></div>");
    if section.kept.is_empty() {
        push!(page, "<p class=\"note\">None found.</p></section>\n");
        return;
    }
    push!(page, "<div class=\"chips\">");
    for (rule, count) in by_count(&section.rules) {
        push!(
            page,
            "<span class=\"chip\">{} <b>{}</b></span>",
            Escaped(rule),
            number(count)
        );
    }
    push!(page, "</div>");
    if class == "license" && !report.expressions.is_empty() {
        push!(page, "<div class=\"chips\"><span class=\"soft\">In use:</span>");
        for (expression, count) in by_count(&report.expressions).into_iter().take(MAX_CHIPS) {
            push!(
                page,
                "<span class=\"chip\">{} <b>{}</b></span>",
                Escaped(expression),
                number(count)
            );
        }
        push!(page, "</div>");
    }
    push!(
        page,
        "<table class=\"stack\"><thead><tr><th>Where<th>Rule<th>What stands there</tr></thead><tbody>\n"
    );
    let mut rows: Vec<&Finding> = section.kept.iter().collect();
    // What needs a decision comes first; within it, the order of the tree.
    rows.sort_by_key(|finding| is_routine(&finding.rule));
    for finding in rows.iter().take(MAX_ROWS) {
        push!(page, "<tr><td class=\"where\"><code>{}", Escaped(&finding.file));
        if finding.line > 0 {
            push!(page, "<span class=\"line\">:{}</span>", finding.line);
        }
        push!(
            page,
            "</code><td class=\"rule\"><span class=\"tag {class}\">{}</span>",
            Escaped(&finding.rule)
        );
        push!(
            page,
            "<td><code class=\"excerpt\">{}</code></tr>\n",
            Escaped(&finding.excerpt)
        );
    }
    push!(page, "</tbody></table>");
    more(
        page,
        usize::try_from(section.total()).unwrap_or(usize::MAX),
        MAX_ROWS,
        "findings",
    );
    push!(page, "</section>\n");
}

fn languages(page: &mut Page, report: &Report) {
    let mut rows: Vec<(&str, Count)> = report.languages.iter().map(|(name, count)| (&**name, *count)).collect();
    rows.sort_by_key(|(name, count)| (std::cmp::Reverse(count.lines), *name));
    let Some((_, largest)) = rows.first() else { return };
    let most = largest.lines.max(1);
    let lines = rows.iter().map(|(_, count)| count.lines).sum();
    push!(
        page,
        "<section><div class=\"head\"><h2>Languages <span class=\"soft\">{}</span></h2>",
        rows.len()
    );
    push!(
        page,
        "<p>{} of text, blank ones included.</p></div>",
        count(lines, "line")
    );
    push!(
        page,
        "<table class=\"lang\"><thead><tr><th>Language<th class=\"hide\"><th class=\"num\">Lines<th class=\"num\">Files</tr></thead><tbody>\n"
    );
    for (name, count) in rows.iter().take(MAX_SHORT_ROWS) {
        let share = (count.lines.saturating_mul(1000) / most).max(4);
        push!(
            page,
            "<tr><td>{}<td><div class=\"bar\"><i style=\"width:{}.{}%\"></i></div>",
            Escaped(name),
            share / 10,
            share % 10
        );
        push!(
            page,
            "<td class=\"num\">{}<td class=\"num\">{}</tr>\n",
            number(count.lines),
            number(count.files)
        );
    }
    push!(page, "</tbody></table></section>\n");
}

fn agents(page: &mut Page, report: &Report) {
    let (agents, tasks) = (&report.facts.agents, &report.facts.tasks);
    if agents.is_empty() {
        return;
    }
    let burned = agents.iter().fold(0_u64, |sum, agent| sum.saturating_add(agent.fuel));
    push!(
        page,
        "<section><div class=\"head\"><h2>Agents <span class=\"soft\">{}</span></h2>",
        agents.len()
    );
    push!(
        page,
        "<p>{}: {} completed, {} failed. {} fuel burned.</p></div>",
        count(tasks.total, "task"),
        number(tasks.completed),
        number(tasks.failed),
        fuel(burned)
    );
    push!(
        page,
        "<table><thead><tr><th>Agent<th class=\"hide\">Plugin<th class=\"num\">Tasks<th class=\"num\">Fuel<th class=\"num\">Peak memory</tr></thead><tbody>\n"
    );
    for agent in agents.iter().take(MAX_SHORT_ROWS) {
        push!(
            page,
            "<tr><td>{}<td class=\"hide soft\">{}",
            Escaped(&agent.name),
            Escaped(&agent.plugin)
        );
        push!(
            page,
            "<td class=\"num\">{}<td class=\"num\">{}<td class=\"num\">{}</tr>\n",
            number(agent.tasks),
            fuel(agent.fuel),
            bytes(agent.peak_memory_bytes)
        );
    }
    push!(page, "</tbody></table>");
    more(page, agents.len(), MAX_SHORT_ROWS, "agents");
    push!(page, "</section>\n");
}

fn more(page: &mut Page, total: usize, shown: usize, what: &str) {
    if total > shown {
        let hidden = u64::try_from(total - shown).unwrap_or(u64::MAX);
        push!(
            page,
            "<p class=\"note\">And {} more {what}; the JSON report lists what fits it.</p>",
            number(hidden)
        );
    }
}

/// A tag that says what a licence file says too needs nobody's attention.
fn is_routine(rule: &str) -> bool {
    matches!(rule, "spdx-tag" | "license-file" | "notice-file")
}

fn by_count(counts: &std::collections::BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(name, count)| (&**name, *count)).collect();
    counts.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    counts
}

/// The beginning of a text that somebody else chose the length of.
fn cut(text: &str) -> &str {
    text.char_indices()
        .nth(200)
        .and_then(|(at, _)| text.get(..at))
        .unwrap_or(text)
}
