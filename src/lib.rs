//! modgate: the one GOPROXY that a whole company sets.
//!
//! It routes each Go module path, by pattern, to an ordered chain of upstreams, goes on along the chain by rules that can be
//! read, merges their version lists, keeps what they gave, and can say why it answered as it did.
//!
//! # The map
//!
//! One crate in layers. A module knows the layers below it and none above; modules of one layer do not know each other. A test
//! (`tests/it/layers.rs`) reads the source and fails on an upward path. Each component owns its small `Settings`, its error and
//! its result types; only [`config`] gathers settings, only [`assemble`] builds.
//!
//! ```text
//! 10 cli        one file a command: serve (signals, reload, upkeep), check, explain, warm, bundle (export, import), verify, gc,
//!               connect, hash_password; wanted (which modules a person names), watch (files that change), upkeep (the
//!               cache's bounds, zips and mirrors while it serves); mod.rs is clap
//! 9  assemble   Config -> Gateway: the one place where the parts meet
//! 8  config     load (figment's layers) -> read (every error, with file, line, key) -> check, server, egress, vcs, vanity, trust,
//!               auth, team, audience (who could see what is not theirs) -> Config; go_env (the machine's Go settings)
//! 7  server     mod.rs: the listeners and the way of a request; site (what is swapped as one), tls, connection (HTTP/1,
//!               sendfile), h2, body, respond (headers, ranges), identify (request -> team), limits, error (the one status
//!               table), observe (the request line), audit, vanity (go-import pages), admin and explain (/-/...)
//! 6  gateway    mod.rs: Gateway::answer, readable top to bottom; team (routes and policy of who asks), chain (what never
//!               changes), copies (what does), turns (one upstream after the other, or side by side where one is late),
//!               transfer (what came, on its way), verify (what it has to be), permit (policy at work), trail (the decision
//!               record), stock (the kept files as a whole), uncompress (zips written anew without compression); pure: freshness,
//!               list, policy, error
//! 5  upstream   mod.rs: the trait; goproxy, vcs, directory, offline; guard (circuit breaker); error (the closed classes)
//! 4  vcs        resolve (path -> repository: rules, hosts, meta), git (mirror, refs), remote (what git is told), revision (query
//!               -> commit and version), place (the module in it), tree (its zip), origin, foreign (other systems, by the go
//!               command), mirrors (upkeep)
//! 4  access     who asks: htpasswd, token, jwt and keys (issuers' tokens), certificate; mod.rs remembers; patience (failures)
//! 4  sumdb      checksum databases: mod.rs (asked and proven), heads (the kept head), tiles, source (who is asked), ask (URL ->
//!               SumdbAsk); pure: note, record, tree, tile
//! 3  process    other programs: their time, output and end
//! 3  egress     an upstream's way out: client (requests, redirects, bodies, on threads of their own), connect (TCP, TLS, strict
//!               ends), interim (1xx, taken out), tunnel (CONNECT, SOCKS), resume (bodies that broke off), throttle (limits,
//!               pauses), retry, reach (not inside), tls, error; pure: proxy (which way), credentials (who we are)
//! 3  store      disk (atomic files), spool (a file that grows, with readers), memory (small hot answers), shelf (small
//!               files by name), look (at files, without waiting where they are in memory), evict
//! 2  route      RouteTable::plan(&ModulePath) -> Plan, pure; it says which rule matched
//! 1  module     path, version, semver, escape, pattern, pseudo, ask (URL -> Ask), info, list, gomod, files, zip, unpacked (a zip
//!               without compression), sum (h1): no async, nothing of HTTP
//! 0  base       units, secret (what cannot be printed), call (request id, cached-only), flight (single flight)
//! ```
//!
//! # The way of a request
//!
//! Who sends a request ([`access`]) and where it is addressed to decide which team it is of. Then it meets the memory of that
//! team's ready answers ([`server`]), by its path as it came. Otherwise its path becomes an [`module::Ask`], and
//! [`gateway::Gateway::answer`] plans the route by the team's table, looks into the folders of the plan's upstreams, and if
//! need be joins or starts a flight, which asks the upstreams in order. Values come back up: an [`gateway::Outcome`] holds
//! the answer or refusal and the [`gateway::Trail`] that explain, log line and error body are made from.
//!
//! # Threads
//!
//! Workers serve and never wait for a disk, an upstream, or each other: they look at files that the kernel has in memory, and have
//! blocking threads look at others. Flights run on the gateway's own runtime, so that they
//! outlive the request that began them. awc's clients, which cannot leave their thread, have egress threads of their own.

pub mod access;
pub mod assemble;
pub mod base;
pub mod cli;
pub mod config;
pub mod egress;
pub mod gateway;
pub mod module;
pub mod process;
pub mod route;
pub mod server;
pub mod store;
pub mod sumdb;
pub mod upstream;
pub mod vcs;
