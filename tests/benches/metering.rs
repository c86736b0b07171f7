//! What the meter costs: the same guests under our engine and under wasmtime without fuel, in turns in the same run.

use serde_json::{Value, json};
use skep_built_guests::FIGURES;
use skep_rules::seam::End;
use wasmtime::{
    Config, Engine, Store,
    component::{Component, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::{round, sandbox, time};

mod bindings {
    wasmtime::component::bindgen!({ path: "../../wit", world: "executor-agent", imports: { default: trappable }, exports: { default: async } });
}

use bindings::skep::agent::{heartbeat, log, types};

/// The baseline's host: stock WASI and imports that do nothing.
struct Plain {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Plain {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl types::Host for Plain {}

impl log::Host for Plain {
    fn write(&mut self, _: log::Level, _: String, _: Vec<(String, String)>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl heartbeat::Host for Plain {
    fn beat(&mut self, _: Option<u8>) -> wasmtime::Result<heartbeat::Directive> {
        Ok(heartbeat::Directive::Continue)
    }
}

/// Three kinds of guest: calls, memory, and both with allocation.
const GUESTS: &[(&str, u64)] = &[("fib", 32), ("sieve", 4_000_000), ("json", 300)];

pub(crate) fn metering() -> Vec<Value> {
    const ROUNDS: usize = 7;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime starts");
    let ours = sandbox::ready(8, |_| {});
    let mut config = Config::new();
    config
        .cranelift_nan_canonicalization(true)
        .concurrency_support(false)
        .max_wasm_stack(512 << 10)
        .async_stack_size(2 << 20);
    let engine = Engine::new(&config).expect("the baseline's engine starts");
    let component = Component::from_binary(&engine, FIGURES).expect("the guest compiles");
    let mut linker = Linker::<Plain>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("WASI links");
    heartbeat::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |plain| plain)
        .expect("heartbeat links");
    let plain = async |input: &Value| {
        let mut store = Store::new(
            &engine,
            Plain {
                wasi: WasiCtxBuilder::new().build(),
                table: ResourceTable::new(),
            },
        );
        let agent = bindings::ExecutorAgent::instantiate_async(&mut store, &component, &linker)
            .await
            .expect("the guest starts");
        let task = bindings::exports::skep::agent::executor::Task {
            id: String::new(),
            attempt: 1,
            description: String::new(),
            input: types::Payload::Inline(input.to_string().into_bytes()),
            dependencies: vec![],
            facts: None,
            remarks: vec![],
        };
        agent
            .skep_agent_executor()
            .call_execute(&mut store, &task)
            .await
            .expect("the guest runs")
            .expect("the guest answers");
    };
    GUESTS
        .iter()
        .map(|(work, n)| {
            let input = json!({"do": work, "n": n});
            let (mut metered, mut bare) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                bare.push(time(|| runtime.block_on(plain(&input))).1);
                let (end, took) = time(|| runtime.block_on(sandbox::attempt(&ours.agent, &input)));
                assert!(matches!(end, End::Finished(_)), "{end:?}");
                metered.push(took);
            }
            metered.sort_unstable();
            bare.sort_unstable();
            let (metered, bare) = (metered[ROUNDS / 2].as_secs_f64(), bare[ROUNDS / 2].as_secs_f64());
            json!({"value": round(metered / bare, 2), "unit": "× unmetered", "guest": work, "metered_ms": round(metered * 1e3, 2), "unmetered_ms": round(bare * 1e3, 2), "n": ROUNDS})
        })
        .collect()
}
