//! Layer 10: the commands. One file a command; this one is clap and the words that all of them use.

mod bundle;
mod check;
mod connect;
mod explain;
mod gc;
mod hash_password;
mod serve;
mod upkeep;
mod verify;
mod wanted;
mod warm;
mod watch;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::assemble::StartError;
use crate::config::load::CONFIG_VARIABLE;
use crate::config::{Config, ConfigError, Log};
use crate::gateway::{Gateway, Team};
use crate::module::Malformed;
use crate::server::ListenError;
use crate::store::StoreError;
use crate::sumdb::SumdbError;

/// One GOPROXY for a whole company: routes Go module paths to an ordered chain of upstreams, keeps what they gave, and says why
/// it answered as it did.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    /// The configuration, a TOML file. Without one, the machine's Go settings name the upstreams.
    #[arg(long, short, global = true, env = CONFIG_VARIABLE, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How it is served.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
struct ServeOptions {
    /// Read the configuration again whenever it changes, or a file with secrets or certificates that it names.
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve modules (the default).
    Serve {
        #[command(flatten)]
        options: ServeOptions,
    },
    /// Check the configuration and print the effective routes.
    Check {
        /// Ask each upstream one harmless question, through its own way out.
        #[arg(long)]
        probe: bool,
    },
    /// Say how a module is answered: the route, what the cache has, what each upstream says.
    Explain {
        /// A module path, or one with a version or query: example.com/mod@v1.2.3, example.com/mod@main.
        #[arg(value_name = "MODULE[@VERSION]")]
        module: String,
        /// As this team is answered, instead of everybody who is of none.
        #[arg(long, value_name = "NAME")]
        team: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Hash a password, read from standard input or typed, for a file of users; or make a token for a file of tokens.
    HashPassword {
        /// The user whose line is printed; without one, the hash alone.
        #[arg(value_name = "USER")]
        user: Option<String>,
        /// Make a token of this name instead: its text goes to standard error, once, and its line to standard output.
        #[arg(long, value_name = "NAME", conflicts_with = "user")]
        token: Option<String>,
    },
    /// Connect standard input and output to a server through a proxy: for ssh, as `ProxyCommand modgate connect %h %p`.
    Connect {
        /// The server's name or address.
        host: String,
        /// Its port.
        port: u16,
        /// The proxy's URL: http://, https://, socks5:// or socks5h://. Without it, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
        #[arg(long, env = crate::vcs::remote::CONNECT_PROXY, hide_env_values = true, value_name = "URL")]
        proxy: Option<String>,
        /// A PEM file of authorities to trust beside the system's, for an https:// proxy.
        #[arg(long, env = crate::vcs::remote::CONNECT_CA, value_name = "FILE")]
        ca_file: Option<PathBuf>,
    },
    /// Fetch what builds will ask for, before they do. What is in the cache already is not fetched again.
    Warm {
        #[command(flatten)]
        names: Names,
    },
    /// Write modules, their sums and what proves them into one file, for an office without a network. What is not in the cache yet is
    /// fetched first.
    Export {
        #[command(flatten)]
        names: Names,
        /// The file to write, a tar.
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take the modules of such a file into the cache. Each has to prove what its route wants.
    Import {
        /// The file.
        bundle: PathBuf,
        /// The upstream that they count as coming from, instead of the first of each one's route.
        #[arg(long, value_name = "UPSTREAM")]
        upstream: Option<String>,
    },
    /// Hash all kept files again, and hold them against the checksum database's sums and those that were seen first.
    Verify {
        /// Put bad files aside, so that they are fetched again.
        #[arg(long)]
        repair: bool,
        /// Forget the sums and files of a version whose change is right: example.com/mod@v1.2.3.
        #[arg(long, value_name = "MODULE@VERSION")]
        forget: Vec<String>,
    },
    /// Bring the cache on disk below its bound, the least recently used files first.
    Gc {
        /// The bound, such as 50GiB, instead of `cache.max_size`.
        #[arg(long, value_name = "SIZE", value_parser = crate::base::units::parse_size)]
        max_size: Option<u64>,
        /// Also remove files of private upstreams, which may be the only copies there are.
        #[arg(long)]
        private_too: bool,
    },
}

/// Modules on a command line.
#[derive(Debug, clap::Args)]
struct Names {
    /// go.sum and go.mod files, lists of module@version (- is standard input), or single module@version.
    #[arg(value_name = "FILE|MODULE@VERSION")]
    modules: Vec<String>,
    /// A Go toolchain, such as go1.26.8.linux-amd64.
    #[arg(long, value_name = "NAME")]
    toolchain: Vec<String>,
    /// As this team would ask, instead of everybody who is of none.
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
    /// So many files are fetched at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sumdb(#[from] SumdbError),
    #[error("{0}")]
    Module(#[from] Malformed),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Said(String),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = cli.config.as_deref();
    if cli.serve.watch && cli.command.is_some() {
        err("modgate: --watch is for serving: modgate serve --watch");
        return ExitCode::FAILURE;
    }
    let done = match cli.command.unwrap_or(Command::Serve { options: cli.serve }) {
        Command::Serve { options } => serve::run(config, options.watch),
        Command::Check { probe } => check::run(config, probe),
        Command::Explain { module, team, json } => explain::run(config, &module, team.as_deref(), json),
        Command::HashPassword { user, token } => hash_password::run(user.as_deref(), token.as_deref()),
        Command::Connect { host, port, proxy, ca_file } => connect::run(&host, port, proxy.as_deref(), ca_file.as_deref()),
        Command::Warm { names } => warm::run(config, &names),
        Command::Export { names, output } => bundle::export(config, &names, &output),
        Command::Import { bundle, upstream } => bundle::import(config, &bundle, upstream.as_deref()),
        Command::Verify { repair, forget } => verify::run(config, repair, &forget),
        Command::Gc { max_size, private_too } => gc::run(config, max_size, private_too),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            for line in e.to_string().lines() {
                err(format_args!("modgate: {line}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// The team of this name; everybody where none is given.
fn team<'g>(gateway: &'g Gateway, name: Option<&str>) -> Result<&'g Team, CliError> {
    gateway.team(name).ok_or_else(|| {
        let known: Vec<&str> = gateway.teams().iter().filter_map(|team| team.name.as_deref()).collect();
        CliError::Said(format!("there is no team {:?} (there are: {})", name.unwrap_or_default(), known.join(", ")))
    })
}

/// Writes a line to standard output. A reader that went away ends nothing.
fn out(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a line to standard error.
fn err(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says what is allowed but worth a word.
fn warn(config: &Config) {
    for warning in &config.warnings {
        err(format_args!("modgate: warning: {warning}"));
    }
}

/// Has a command say what goes wrong on its way, and no more.
fn start_logging_trouble(log: &Log) -> tracing_appender::non_blocking::WorkerGuard {
    start_logging(&Log { filter: "warn".into(), ..log.clone() })
}

/// Starts logging to standard error, without making a request wait for it: when lines come faster than they can be written,
/// some are dropped. The guard writes what is left when it goes.
fn start_logging(log: &Log) -> tracing_appender::non_blocking::WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    // The filter was checked with the configuration.
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // A second start in one process, as in tests, keeps the first one's.
    let _ = if log.json {
        lines.json().flatten_event(true).try_init()
    } else {
        use std::io::IsTerminal;
        lines.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    guard
}
