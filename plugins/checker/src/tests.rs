use skep_sdk::Retry;

use super::*;

fn check(check: &Value, output: &Value) -> Result<Verdict, Failure> {
    let input = json!({"topic": "bees", "$check": check});
    Checks::check(Task::new("write", &input).unwrap(), Payload::json(output).unwrap())
}

fn remark(verdict: Result<Verdict, Failure>) -> String {
    match verdict.unwrap() {
        Verdict::Accepted => String::new(),
        Verdict::Rejected(remark) => remark,
    }
}

fn failure(verdict: Result<Verdict, Failure>) -> String {
    let failure = verdict.expect_err("it fails");
    assert_eq!(failure.retry, Retry::Never);
    failure.message
}

#[test]
fn without_a_check_something_is_enough() {
    let task = Task::new("write", &json!({"topic": "bees"})).unwrap();
    for (output, expected) in [
        (&b"some text"[..], ""),
        (b"{\"a\": 1}", ""),
        (b"[]", ""),
        (b"", "the output is empty"),
        (b" \n", "the output is empty"),
        (b"null", "the output is empty: null"),
        (b"ab\xff", "the output is neither JSON nor text: byte 2 is not UTF-8"),
    ] {
        let verdict = Checks::check(task.clone(), Payload::Inline(output.to_vec()));
        assert_eq!(remark(verdict), expected, "{output:?}");
    }
}

#[test]
fn schemas_name_the_places_that_are_wrong() {
    let schema = json!({"schema": {
        "$defs": {"page": {"type": "integer", "minimum": 1}},
        "type": "object",
        "required": ["title"],
        "properties": {"pages": {"items": {"$ref": "#/$defs/page"}}, "title": {"pattern": "^[A-Z]"}},
    }});
    for (output, expected) in [
        (json!({"title": "Bees", "pages": [1, 2]}), ""),
        (json!(7), "the output: it is not of type \"object\" (schema: /type)"),
        (
            json!({"title": "Bees", "pages": [1, 0]}),
            "/pages/1 of the output: it is less than the minimum of 1 (schema: /$defs/page/minimum)",
        ),
        (
            json!({"pages": ["x"]}),
            "\"title\" is a required property (schema: /required)",
        ),
        (json!({"title": "bees"}), "/title of the output: it does not match"),
    ] {
        let remark = remark(check(&schema, &output));
        assert!(
            remark.contains(expected) && remark.is_empty() == expected.is_empty(),
            "{remark}"
        );
    }
    let many = remark(check(
        &json!({"schema": {"items": {"type": "null"}}}),
        &json!(vec![1; 100]),
    ));
    assert!(many.lines().count() <= 9, "{many}");
}

#[test]
fn expressions_name_their_values() {
    let expressions = json!({"expressions": ["output.count > 0", "output.title.contains(input.topic)", "output.items.all(i, i < 10)"]});
    let good = json!({"count": 1, "title": "all bees", "items": [1, 2]});
    assert_eq!(remark(check(&expressions, &good)), "");
    let bad = json!({"count": 0, "title": "wasps", "items": [1, 20]});
    let expected = "`output.count > 0` is false; /count of the output is 0\n\
        `output.title.contains(input.topic)` is false; /topic of the input is \"bees\", /title of the output is \"wasps\"\n\
        `output.items.all(i, i < 10)` is false; /items of the output is [1,20]";
    assert_eq!(remark(check(&expressions, &bad)), expected);
    let missing = remark(check(&json!({"expressions": ["output.count > 0"]}), &json!({})));
    assert_eq!(
        missing,
        "`output.count > 0` has no value: No such key: count; the output has no /count"
    );
    let word = remark(check(&json!({"expressions": ["output.ok"]}), &json!({"ok": "yes"})));
    assert_eq!(word, "`output.ok` is \"yes\"; /ok of the output is \"yes\"");
}

#[test]
fn numbers_are_what_expressions_write() {
    let expressions = json!({"expressions": ["output.whole + 1 == 3", "output.part > 0", "output.part < 1.5", "output.large > 0u", "-output.minus == 2"]});
    let output = json!({"whole": 2, "part": 1.25, "large": u64::MAX, "minus": -2});
    assert_eq!(remark(check(&expressions, &output)), "");
}

#[test]
fn expressions_know_the_dependencies_and_not_the_check() {
    let expressions = [
        "dependencies.draft.output.pages == output.pages",
        "dependencies[\"gone\"].ended == \"failed\"",
        "size(input) == 1",
    ];
    let mut task = Task::new(
        "edit",
        &json!({"topic": "bees", "$check": {"expressions": expressions}}),
    )
    .unwrap();
    let dependency = |name: &str, ended, output| Dependency {
        name: name.to_owned(),
        ended,
        output,
        reason: None,
    };
    task.dependencies = vec![
        dependency(
            "draft",
            Ended::Completed,
            Some(Payload::json(&json!({"pages": 3})).unwrap()),
        ),
        dependency("gone", Ended::Failed, None),
    ];
    let verdict = Checks::check(task, Payload::json(&json!({"pages": 3})).unwrap());
    assert_eq!(remark(verdict), "");
}

#[test]
fn what_is_no_check_fails_for_good() {
    for (wrong, expected) in [
        (json!(7), "/$check of the input: invalid type"),
        (json!({"schemas": {}}), "/$check of the input: unknown field `schemas`"),
        (
            json!({"schema": {"type": "strin"}}),
            "/$check/schema/type of the input is no schema: ",
        ),
        (json!({"schema": 7}), "/$check/schema of the input is no schema: "),
        (
            json!({"schema": {"properties": {"a": {"pattern": "(?=x)"}}}}),
            "/$check/schema/properties/a/pattern of the input is no schema: ",
        ),
        (
            json!({"expressions": ["true", "output.count >"]}),
            "/$check/expressions/1 of the input: line 1, column ",
        ),
        (
            json!({"expressions": ["outptu.count > 0"]}),
            "/$check/expressions/0 of the input: there is no `outptu`",
        ),
        (
            json!({"expressions": ["shout(output)"]}),
            "/$check/expressions/0 of the input: ",
        ),
        (
            json!({"expressions": ["x".repeat(5000)]}),
            "/$check/expressions/0 of the input: it has 5000 bytes",
        ),
        (
            json!({"expressions": vec!["true"; 65]}),
            "/$check/expressions of the input: 65 are too many",
        ),
    ] {
        let message = failure(check(&wrong, &json!({"count": 1})));
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn no_schema_reaches_outside() {
    for reference in [
        "http://127.0.0.1:9/schema.json",
        "https://example.com/s",
        "file:///etc/passwd",
        "other.json",
        "#/$defs/none",
    ] {
        let message = failure(check(&json!({"schema": {"$ref": reference}}), &json!(1)));
        assert!(message.contains("is no schema: "), "{message}");
    }
}

#[test]
fn hostile_checks_end() {
    // What nests deeper than JSON may is no JSON any more, so it is no check either.
    let deep = format!(
        "{{\"$check\": {{\"schema\": {}true{}}}}}",
        "{\"not\":".repeat(5_000),
        "}".repeat(5_000)
    );
    let task = Task {
        input: Payload::Inline(deep.into_bytes()),
        ..Task::new("write", &()).unwrap()
    };
    assert!(failure(Checks::check(task, Payload::Inline(b"1".to_vec()))).contains("recursion limit"));

    let deep = (0..100).fold(json!(true), |schema, _| json!({"not": schema}));
    assert_eq!(remark(check(&json!({"schema": deep}), &json!(1))), "");

    let nested = json!({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"});
    let output = (0..100).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(remark(check(&json!({"schema": nested}), &output)), "");

    // Exponential where patterns are tried one way after the other.
    let pattern = json!({"schema": {"pattern": "^(a+)+$"}});
    assert!(!remark(check(&pattern, &json!(format!("{}!", "a".repeat(50_000))))).is_empty());

    for (open, close) in [("[", "]"), ("size([", "])"), ("{1: ", "}"), ("true ? false : (", ")")] {
        let deep = format!("{}true{}", open.repeat(200), close.repeat(200));
        let message = failure(check(&json!({"expressions": [deep]}), &json!(1)));
        assert_eq!(
            message, "/$check/expressions/0 of the input: it nests too deep",
            "{open}"
        );
    }
}

#[test]
fn a_schema_that_is_only_itself_ends() {
    let own = json!({"schema": {"$ref": "#"}});
    let _ends = check(&own, &json!(1));
    let two =
        json!({"schema": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}});
    let _ends = check(&two, &json!(1));
}
