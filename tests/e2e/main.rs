//! Tests that need more than this repository: the machine's Go module proxy, the Go tree's own test proxy, nginx, wrk,
//! squid, tinyproxy, dante, git, sshd, Mercurial, Subversion, openssl, curl, Apache's htpasswd, and network namespaces.
//! `tests/run` installs the programs and switches these tests on with the feature `e2e`. Where a program is missing, its test
//! fails.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod bundle;
mod cachefolder;
mod daemons;
mod full;
mod goegress;
mod gotestproxy;
mod helpers;
mod jwt;
mod jwtkeys;
mod namespace;
mod nginx;
mod proxies;
mod public;
mod sumdb;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "some of it is for the tests of modgate alone")]
mod support;
mod teams;
mod tls;
mod vcs;
mod xjose;
mod xmod;
mod xmodrepo;
