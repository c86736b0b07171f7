//! Hostile components that no compiler makes (T02, T03, T05 to T09): core modules written by hand, wrapped as executors.

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::harness::{Host, plugin, plugin_unchecked, until};

/// A component that exports the executor: `body` is what `execute` does before it answers with the four bytes at address 1048, as `$hex`. The rest of
/// the memory is zero, which reads as `ok(done(inline(…)))`.
fn component(module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit"))
        .expect("the contract parses");
    let world = resolve
        .select_world(&[package], Some("executor-agent"))
        .expect("the world is there");
    let mut bytes = wat::parse_str(module).unwrap_or_else(|error| panic!("{error}\n{module}"));
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).expect("the metadata fits");
    ComponentEncoder::default()
        .validate(false)
        .module(&bytes)
        .expect("a module")
        .encode()
        .expect("a component")
}

/// Where the parts of a module go; the defaults do nothing.
#[derive(Default, Clone, Copy)]
struct Parts<'a> {
    fields: &'a str,
    execute: &'a str,
    realloc: &'a str,
    post_return: &'a str,
}

/// An executor that does nothing but answer.
pub(crate) fn idle() -> Vec<u8> {
    module(Parts::default())
}

fn module(parts: Parts<'_>) -> Vec<u8> {
    let Parts {
        fields,
        execute,
        realloc,
        post_return,
    } = parts;
    component(&format!(
        r#"(module
            (memory $main (export "memory") 2)
            (global $next (mut i32) (i32.const 65536))
            {fields}
            (func (export "cabi_realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
                {realloc}
                (global.get $next)
                (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get $new)) (i32.const 15)) (i32.const -8))))
            (func (export "skep:agent/executor@0.1.0#execute") (param i32) (result i32)
                {execute}
                ;; ok, done, inline: the list of four bytes at 1048
                (i32.store (i32.const 1048) (i32.const 1056))
                (i32.store (i32.const 1052) (i32.const 4))
                (i32.const 1024))
            (func (export "cabi_post_skep:agent/executor@0.1.0#execute") (param i32) {post_return}))"#
    ))
}

const SPIN: &str = "(loop $for_ever (br $for_ever))";
const SMALL: &str = "limits = { tier = \"small\", fuel = \"500M\", deadline = \"20s\" }\n";

fn run(host: &Host, crew: &str) -> Value {
    host.run(&json!({"description": "a hostile component", "crew": crew, "input": 1, "retry": {"maxRetries": 0, "onExhausted": "fail"}}))
}

/// The number that `execute` left at address 1056. Four bytes that happen to be text are told as text.
fn number(task: &Value) -> u32 {
    let result = &task["result"];
    if let Some(text) = result["$text"].as_str() {
        return u32::from_le_bytes(text.as_bytes().try_into().expect("four bytes"));
    }
    let hex = result["$hex"].as_str().unwrap_or_else(|| panic!("{task}"));
    u32::from_str_radix(hex, 16).expect("eight digits").swap_bytes()
}

#[test]
fn endless_loops_are_stopped_wherever_they_hide() {
    let host = Host::start();
    let places = [
        (
            "execute",
            Parts {
                execute: SPIN,
                ..Parts::default()
            },
        ),
        (
            "realloc",
            Parts {
                realloc: SPIN,
                ..Parts::default()
            },
        ),
        (
            "post-return",
            Parts {
                post_return: SPIN,
                ..Parts::default()
            },
        ),
    ];
    for (place, parts) in places {
        host.crew(place, &module(parts), "", SMALL);
        let ended = run(&host, place);
        assert_eq!(
            (&ended["state"], &ended["failure"]["code"]),
            (&json!("FAILED"), &json!("fuel-exhausted")),
            "{place}: {ended}"
        );
    }
    host.crew("good-twin", &module(Parts::default()), "", SMALL);
    assert_eq!(
        run(&host, "good-twin")["state"],
        "COMPLETED",
        "the same component without a loop works"
    );
}

/// The reason code of something that can never be made ready: of the refusal when it is installed, where it is too large for the tier that its
/// own manifest names, else of the only agent of a crew that gives it less.
fn fails_to_warm(host: &Host, name: &str, component: &[u8]) -> Value {
    let installed = host.install(&plugin(name, component, ""));
    if installed.status >= 300 {
        return installed.json()["code"].clone();
    }
    let crew = json!({"name": name, "agent": [{"name": name, "plugin": format!("test/{name}@1.0.0"), "limits": {"tier": "small", "fuel": "500M", "deadline": "20s"}}]});
    let assembled = host.call("POST", "/v1/crews/assemble", &crew);
    let id = assembled.json()["crew_id"]
        .as_str()
        .unwrap_or_else(|| panic!("{name}: {}", assembled.json()))
        .to_owned();
    let agent = until("the agent has failed", || {
        let status = host.get(&format!("/v1/crews/{id}/status"));
        status["members"]
            .as_array()?
            .iter()
            .find(|agent| agent["phase"] == "FAILED")
            .cloned()
    });
    agent["failure"]["code"].clone()
}

#[test]
fn what_cannot_even_be_instantiated_never_becomes_ready() {
    let host = Host::start();
    let start = module(Parts {
        fields: &format!("(func $begin {SPIN}) (start $begin)"),
        ..Parts::default()
    });
    assert_eq!(fails_to_warm(&host, "start", &start), "fuel-exhausted");
    let fat = module(Parts {
        fields: "(memory $fat 2000)",
        ..Parts::default()
    });
    assert_eq!(fails_to_warm(&host, "born-fat", &fat), "memory-limit");
    let table = module(Parts {
        fields: "(table 30000 funcref)",
        ..Parts::default()
    });
    assert_eq!(fails_to_warm(&host, "table-giant", &table), "memory-limit");
    let many = module(Parts {
        fields: &"(memory 1)".repeat(9),
        ..Parts::default()
    });
    assert_eq!(fails_to_warm(&host, "memories", &many), "memory-limit");
}

#[test]
fn memory_is_summed_over_all_memories() {
    let host = Host::start();
    // Grows two memories in turns, a page at a time, until one of them refuses; then the other.
    let grow = |memory: &str| {
        format!("(loop $more (if (i32.ne (memory.grow {memory} (i32.const 1)) (i32.const -1)) (then (br $more))))")
    };
    let execute = format!(
        "(loop $turns
            (br_if $turns (i32.and
                (i32.ne (memory.grow $main (i32.const 1)) (i32.const -1))
                (i32.ne (memory.grow $second (i32.const 1)) (i32.const -1)))))
         {} {}
         (i32.store (i32.const 1056) (i32.add (memory.size $main) (memory.size $second)))",
        grow("$main"),
        grow("$second")
    );
    let component = module(Parts {
        fields: "(memory $second 1)",
        execute: &execute,
        ..Parts::default()
    });
    host.crew("balloon", &component, "", "limits = { tier = \"small\" }\n");
    let ended = run(&host, "balloon");
    assert_eq!(
        number(&ended),
        256,
        "16 MiB are 256 pages, however many memories: {ended}"
    );
}

#[test]
fn tables_are_summed_too() {
    let host = Host::start();
    let execute = "(loop $more (br_if $more (i32.ne (table.grow $a (ref.null func) (i32.const 1000)) (i32.const -1))))
         (loop $more (br_if $more (i32.ne (table.grow $b (ref.null func) (i32.const 1000)) (i32.const -1))))
         (i32.store (i32.const 1056) (i32.add (table.size $a) (table.size $b)))";
    let component = module(Parts {
        fields: "(table $a 0 funcref) (table $b 0 funcref)",
        execute,
        ..Parts::default()
    });
    host.crew("tables", &component, "", SMALL);
    assert_eq!(number(&run(&host, "tables")), 20_000);
}

#[test]
fn recursion_on_the_native_stack_is_a_stack_overflow() {
    let host = Host::start();
    let fields = "(func $dive (param i64) (result i64) (i64.add (call $dive (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))";
    let component = module(Parts {
        fields,
        execute: "(drop (call $dive (i64.const 0)))",
        ..Parts::default()
    });
    host.crew("diver", &component, "", SMALL);
    assert_eq!(run(&host, "diver")["failure"]["code"], "stack-overflow");
}

#[test]
fn large_copies_burn_fuel_by_the_byte() {
    let host = Host::start();
    let execute = "(drop (memory.grow $main (i32.const 200)))
        (loop $again (memory.copy (i32.const 65536) (i32.const 6000000) (i32.const 6000000)) (br $again))";
    host.crew(
        "copycat",
        &module(Parts {
            execute,
            ..Parts::default()
        }),
        "",
        "limits = { tier = \"small\", fuel = \"5G\", deadline = \"20s\" }\n",
    );
    assert_eq!(run(&host, "copycat")["failure"]["code"], "fuel-exhausted");
}

#[test]
fn features_that_the_engine_has_off_are_refused_at_install() {
    let host = Host::start();
    let features = [
        ("memory64", "(memory $wide i64 1)"),
        ("threads", "(memory $shared 1 1 shared)"),
        ("exceptions", "(tag $oops)"),
        ("garbage collection", "(type $pair (struct (field i32)))"),
        (
            "function references",
            "(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))",
        ),
        (
            "relaxed SIMD",
            "(func (result v128) (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))",
        ),
    ];
    for (name, fields) in features {
        let answer = host.install(&plugin_unchecked(&module(Parts {
            fields,
            ..Parts::default()
        })));
        assert!(
            matches!(answer.status, 400..=422),
            "{name}: {} {}",
            answer.status,
            answer.json()
        );
    }
    assert_eq!(host.get("/v1/plugins")["items"], json!([]));
}
