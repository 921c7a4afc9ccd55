//! `modgate hash-password`: lines for `users_file` and `tokens_file`.

use std::io::{BufRead, IsTerminal};

use super::{CliError, err, out};
use crate::access::htpasswd::{PasswordHash, check_name};
use crate::access::token;

/// The longest password that is read.
const MAX_PASSWORD: usize = 4096;

pub(super) fn run(user: Option<&str>, token: Option<&str>) -> Result<(), CliError> {
    if let Some(name) = token {
        let (text, line) = token::make(name).map_err(CliError::Said)?;
        err(format_args!("modgate: the token, which is not shown again: {text}"));
        out(line);
        return Ok(());
    }
    if let Some(user) = user {
        check_name(user).map_err(CliError::Said)?;
    }
    let password = read()?;
    let hash = PasswordHash::of_password(&password).map_err(CliError::Said)?;
    match user {
        Some(user) => out(format_args!("{user}:{hash}")),
        None => out(hash),
    }
    Ok(())
}

/// A password typed twice without being shown, or the first line of standard input.
fn read() -> Result<String, CliError> {
    let password = if std::io::stdin().is_terminal() {
        let password = rpassword::prompt_password("password: ")?;
        if rpassword::prompt_password("again: ")? != password {
            return Err(CliError::Said("the two are not the same".into()));
        }
        password
    } else {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        line.strip_suffix('\r').unwrap_or(line).to_owned()
    };
    match password.len() {
        0 => Err(CliError::Said("an empty password is none".into())),
        length if length > MAX_PASSWORD => Err(CliError::Said(format!("longer than {MAX_PASSWORD} bytes"))),
        _ => Ok(password),
    }
}
