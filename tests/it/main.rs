//! Behaviour over real sockets: the built program, the real go command, upstreams on loopback. No network is needed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "some of it is for the tests with real parts")]
mod support;

mod bad_input;
mod chain;
mod commands;
mod configuration;
mod credentials;
mod discovery;
mod egress;
mod go_command;
mod layers;
mod lifecycle;
mod lists;
mod parsers;
mod policy;
mod reach;
mod room;
mod secure;
mod stock;
mod stock_bundle;
mod stock_corners;
mod stock_lies;
mod stock_verify;
mod streaming;
mod teams;
mod teams_access;
mod teams_config;
mod tls;
mod uncompressed;
mod verify;
mod verify_corners;
mod verify_kept;
mod verify_modes;
