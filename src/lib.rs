//! modgate: one GOPROXY for a whole company.
pub mod assemble;
pub mod base;
pub mod cli;
pub mod config;
pub mod egress;
pub mod gateway;
pub mod module;
pub mod route;
pub mod server;
pub mod store;
pub mod upstream;
