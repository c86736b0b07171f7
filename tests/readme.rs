//! The README, typed line by line: each `sh` block from the first agent to the audit log of an operator who met a bad one. A comment is a promise as
//! well: `# exit 6: rollback` is the exit code and a word that is printed, and so is each word in backquotes. Nobody can be asked.

use std::{fmt::Write as _, fs, path::Path};

use crate::harness::{binary, directory};

/// One command, with what its comment promises.
struct Line {
    command: String,
    exit: i32,
    says: Vec<String>,
}

impl Line {
    fn read(command: &str, comment: &str) -> Line {
        let (exit, mut says) = match comment.trim().strip_prefix("exit ") {
            Some(promise) => {
                let (exit, code) = promise.split_once(": ").expect("`exit N: CODE`");
                (exit.parse().expect("an exit code"), vec![code.trim().to_owned()])
            }
            None => (0, Vec::new()),
        };
        let quoted = comment.split('`').skip(1).step_by(2);
        says.extend(quoted.map(str::to_owned));
        Line {
            command: command.to_owned(),
            exit,
            says,
        }
    }
}

/// The lines of the `sh` blocks between two headings; a here-document is one with its command.
fn lines(document: &str) -> Vec<Line> {
    let (_, rest) = document.split_once("\n## Write an agent\n").expect("where it begins");
    let (walk, _) = rest.split_once("\n## What is promised\n").expect("where it ends");
    let mut found = Vec::new();
    for block in walk.split("\n```sh\n").skip(1) {
        let mut text = block.split("\n```").next().unwrap_or_default().lines();
        while let Some(line) = text.next() {
            let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
            let mut command = command.trim_end().to_owned();
            if command.ends_with("<<'END'") {
                for line in text.by_ref() {
                    command += &format!("\n{line}");
                    if line == "END" {
                        break;
                    }
                }
            }
            found.push(Line::read(&command, comment));
        }
    }
    found
}

/// A script that types the lines and ends at the first that does not keep its promise. Commands share one shell, as in a terminal.
fn script(lines: &[Line], logs: &Path) -> String {
    let mut script = String::from(
        "trap 'kill $! 2>/dev/null' EXIT\n\
         check() {\n  [ \"$1\" -eq \"$2\" ] || { echo \"BROKEN: exit $1, not $2\"; exit 1; }\n  out=$3; shift 3\n  \
         for word; do grep -q -e \"$word\" \"$out\" || { echo \"BROKEN: \\`$word\\` is not said\"; exit 1; }; done\n}\n\
         ready() {\n  for i in $(seq 600); do skep agent ls >/dev/null 2>&1 && return; sleep 0.1; done\n  echo 'BROKEN: no host'; exit 1\n}\n",
    );
    for (at, line) in lines.iter().enumerate() {
        let out = logs.join(format!("{at}.txt"));
        let out = out.display();
        let says: Vec<String> = line.says.iter().map(|word| format!("'{word}'")).collect();
        let shown = line.command.replace('\'', "'\\''");
        let (command, exit, says) = (&line.command, line.exit, says.join(" "));
        write!(
            script,
            "printf '%s\\n' '$ {shown}'\n{{\n{command}\n}} >'{out}' 2>&1\ncode=$?\ncat '{out}'\ncheck $code {exit} '{out}' {says}\n"
        )
        .expect("a string takes everything");
        if command.starts_with("skep up") {
            // The pause that is enough at a desk may be too short for a machine that runs all the tests.
            script.push_str("ready\n");
        }
        if command.starts_with("skep task submit") && !command.contains("--wait") {
            script.push_str("for i in $(seq 600); do skep task ls | grep -q running && break; sleep 0.1; done\n");
        }
    }
    script
}

#[test]
fn readme_can_be_typed_as_it_is() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let lines = lines(&fs::read_to_string(document).unwrap());
    let refused = lines.iter().filter(|line| line.exit != 0).count();
    assert!(lines.len() >= 40 && refused >= 6, "{} lines, {refused}", lines.len());

    let directory = directory();
    let at = directory.path();
    let (logs, work) = (at.join("logs"), at.join("work"));
    fs::create_dir(&logs).unwrap();
    fs::create_dir(&work).unwrap();
    let skep = binary();
    let folder = Path::new(skep.get_program()).parent().unwrap();
    let script = format!("PATH='{}':$PATH\n{}", folder.display(), script(&lines, &logs));
    let mut shell = std::process::Command::new("sh");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SKEP_")) {
        shell.env_remove(name);
    }
    let output = shell
        .args(["-c", &script])
        .current_dir(&work)
        .env("NO_COLOR", "1")
        .env("XDG_DATA_HOME", at.join("home"))
        .env("XDG_CONFIG_HOME", at.join("home"))
        .env("SKEP_LISTEN", "127.0.0.1:0")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && !said.contains("BROKEN"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
