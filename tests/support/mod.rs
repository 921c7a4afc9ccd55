//! What all tests share: modgate as a real process, upstreams that behave and misbehave, modules to serve, a plain HTTP client
//! that sees every byte, and the go command in a clean room.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

pub mod gate;
pub mod git;
pub mod go;
pub mod http;
pub mod modules;
pub mod pages;
pub mod people;
pub mod proxy;
pub mod secure;
pub mod sumdb;
pub mod tls;
pub mod upstream;

use std::sync::atomic::{AtomicU32, Ordering};

/// A port of loopback that is free at this moment, and that nobody else in this process is given. It is none of those that the
/// system hands out by itself to whoever connects meanwhile.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(1013);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + start.wrapping_add(given) % 20_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until something holds, for at most ten seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
