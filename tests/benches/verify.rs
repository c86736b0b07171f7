//! What stands between an upload and its compilation: an envelope, its signature and the digest of 1 MiB.

use serde_json::{Value, json};
use skep_rules::{
    id::Digest,
    quantity::Time,
    release::{Content, FORMAT, HOST_API, PAYLOAD_TYPE, Release},
};
use skep_runtime::signature::{self, SecretKey};

use crate::{percentiles, round, time};

pub(crate) fn verify() -> Vec<Value> {
    const SIZE: usize = 1 << 20;
    const TIMES: usize = 1_000;
    // Nothing of it is parsed before the signature holds, so any bytes cost the same.
    let component: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    let key = SecretKey::from_random(&[7; 32]);
    let release = Release {
        format: FORMAT,
        plugin: "bench/verify".parse().expect("a name"),
        version: "1.0.0".parse().expect("a version"),
        release_seq: 1,
        previous: None,
        component: Content {
            sha256: Digest::of(&component),
            size: SIZE as u64,
        },
        imports: (0..20).map(|n| format!("wasi:io/interface-{n}@0.2.6")).collect(),
        exports: ["skep:agent/executor@0.1.0".to_owned()].into(),
        host_api: HOST_API.parse().expect("a version"),
        not_before: Time(1),
        expires: Time(2),
        provenance: None,
        license: String::new(),
        contact: String::new(),
    };
    let envelope = signature::sign(PAYLOAD_TYPE, &release.to_json(), &[&key]);
    let samples = (0..TIMES).map(|_| {
        let (signed, took) = time(|| signature::release(&envelope, &component, [key.public()]));
        assert!(signed.is_ok(), "it verifies");
        took
    });
    let (p50, p99) = percentiles(samples.collect());
    let value = round(p50 / 1e3, 3);
    vec![
        json!({"value": value, "unit": "ms", "p50": value, "p99": round(p99 / 1e3, 3), "n": TIMES, "component_bytes": SIZE}),
    ]
}
