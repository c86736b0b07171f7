//! `skep doctor` on data directories that no host can use: each is explained, with what was found and what to do.

use std::{fs, path::Path};

use redb::ReadableTable as _;
use serde_json::{Value, json};
use skep_built_guests::LIMITS;
use tempfile::TempDir;

use crate::harness::{Host, directory, skep};

/// A data directory that a host has worked in and left.
fn left() -> (TempDir, std::path::PathBuf) {
    let directory = directory();
    let data = directory.path().join("data");
    let mut host = Host::start_in(&data, &[]);
    host.crew("limits", LIMITS, "", "");
    host.run(&json!({"description": "work", "crew": "limits", "input": {"do": "sleep", "ms": 1}}));
    host.stop();
    (directory, data)
}

/// What the doctor says of one thing.
fn check(data: &Path, deep: bool, what: &str) -> Value {
    let arguments = ["doctor", "-o", "json", "--data-dir", data.to_str().unwrap(), "--deep"];
    let run = skep(Path::new("/"), &arguments[..arguments.len() - usize::from(!deep)]);
    let checks = run.json();
    let found = checks.as_array().unwrap().iter().find(|check| check["what"] == what);
    let found = found.unwrap_or_else(|| panic!("nothing of {what}: {checks}")).clone();
    assert!(run.code == 1 || found["state"] != "fail", "{checks}");
    found
}

/// Asserts what was found, and that something is said to be done.
fn fails(check: &Value, found: &str, next: &str) {
    assert_eq!(check["state"], "fail", "{check}");
    assert!(check["found"].as_str().unwrap().contains(found), "{found}: {check}");
    assert!(check["next"].as_str().unwrap().contains(next), "{next}: {check}");
}

/// Changes a row behind the store's back.
fn edit(data: &Path, table: &str, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
    let database = redb::Database::open(data.join("store/store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let definition = redb::TableDefinition::<&[u8], &[u8]>::new(table);
        let mut rows = transaction.open_table(definition).unwrap();
        let mut row = rows.get(key).unwrap().unwrap().value().to_vec();
        change(&mut row);
        rows.insert(key, row.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

/// The keys of a table.
fn keys(data: &Path, table: &str) -> Vec<Vec<u8>> {
    let database = redb::Database::open(data.join("store/store.redb")).unwrap();
    let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
    let definition = redb::TableDefinition::<&[u8], &[u8]>::new(table);
    let rows = transaction.open_table(definition).unwrap();
    rows.iter()
        .unwrap()
        .map(|row| row.unwrap().0.value().to_vec())
        .collect()
}

#[test]
fn a_directory_in_use_names_its_host() {
    let host = Host::start();
    let store = check(host.data(), false, "store");
    assert_eq!(store["state"], "ok");
    let holder = format!("process {} at http://{}", host.pid(), host.address);
    assert!(store["found"].as_str().unwrap().contains(&holder), "{store}");
    let store = check(host.data(), true, "store");
    assert_eq!(store["state"], "warn");
    assert!(store["next"].as_str().unwrap().contains("skep backup"), "{store}");
    // Who says nothing of itself is not a host that runs.
    fs::remove_file(host.data().join("host.json")).unwrap();
    let store = check(host.data(), false, "store");
    assert!(
        store["state"] == "warn" && store["next"].as_str().unwrap().contains("fuser"),
        "{store}"
    );
}

#[test]
fn a_foreign_directory_is_named_by_what_does_not_belong_there() {
    let directory = directory();
    fs::write(directory.path().join("thesis.tex"), "x").unwrap();
    fails(
        &check(directory.path(), false, "data directory"),
        "`thesis.tex`",
        "--data-dir",
    );

    let directory = self::directory();
    fs::create_dir_all(directory.path().join("store")).unwrap();
    fs::write(directory.path().join("store/thesis.tex"), "x").unwrap();
    fails(
        &check(directory.path(), false, "store"),
        "is not a store of skep",
        "--data-dir",
    );

    let directory = self::directory();
    fs::create_dir_all(directory.path().join("store.restoring")).unwrap();
    fails(
        &check(directory.path(), false, "data directory"),
        "store.restoring",
        "a restore was cut short",
    );

    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    fails(&check(&file, false, "data directory"), "not a directory", "--data-dir");
}

#[test]
fn a_directory_of_another_release_names_both_formats() {
    let (_directory, data) = left();
    // The head row is an array that begins with the format.
    edit(&data, ".meta", b"head", |row| row[1] = 9);
    fails(
        &check(&data, false, "store"),
        "the store has format 9, this release reads 2",
        "use the release that wrote it",
    );
    // The host says so too.
    let arguments = ["up", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    skep(&data, &arguments).exits(1).says(&["format 9", "skep doctor"]);
}

#[test]
fn what_is_damaged_is_named() {
    let flip = |row: &mut Vec<u8>| {
        let middle = row.len() / 2;
        row[middle] ^= 1;
    };
    let (_directory, data) = left();
    let sound = check(&data, true, "replay");
    assert_eq!(sound["state"], "ok", "{sound}");

    let (_directory, data) = left();
    let key = keys(&data, ".frames").last().unwrap().clone();
    edit(&data, ".frames", &key, flip);
    fails(&check(&data, false, "store"), "damaged frame: entry", "skep restore");

    for (table, what, named) in [
        (".audit", "audit log", "damaged audit row: 1: "),
        (".records", "tables", "damaged row: table .records, key "),
        (".records", "replay", "damaged row: table .records, key "),
        ("tasks", "tables", "damaged row: table tasks, key "),
    ] {
        let (_directory, data) = left();
        let key = keys(&data, table)
            .first()
            .unwrap_or_else(|| panic!("nothing in {table}"))
            .clone();
        edit(&data, table, &key, flip);
        fails(&check(&data, true, what), named, "skep restore");
    }

    let (_directory, data) = left();
    let blob = fs::read_dir(data.join("store/blobs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_file())
        .expect("the plugin's file is a blob");
    let name = blob.file_name().unwrap().to_str().unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[100] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    fails(
        &check(&data, true, "blobs"),
        &format!("damaged blob: {name}"),
        "skep restore",
    );
    fs::remove_file(&blob).unwrap();
    fails(
        &check(&data, true, "named blobs"),
        &format!("no blob {name}"),
        "skep restore",
    );

    // Pages of the engine's file: found without looking for them.
    let (_directory, data) = left();
    let file = data.join("store/store.redb");
    let mut bytes = fs::read(&file).unwrap();
    let name = b"test/limits";
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    assert!(!places.is_empty(), "the plugin's record is in the file");
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    fs::write(&file, &bytes).unwrap();
    fails(&check(&data, false, "store"), "damaged database", "skep restore");
}
