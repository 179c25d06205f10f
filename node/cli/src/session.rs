//! Who an operator is: a session that was begun before, or a password from a file, the environment, or the
//! terminal. Never from the command line, which everybody on the machine can read.

use std::{
    env, fs,
    io::{self, BufRead, IsTerminal, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use http::StatusCode;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use crate::client::{Client, Refused};

/// Holds a password, for programs.
const PASSWORD: &str = "HOLDFAST_PASSWORD";

/// Where sessions are kept, instead of the user's state directory.
const SESSION_DIR: &str = "HOLDFAST_SESSION_DIR";

/// How to log in.
#[derive(Debug, Clone)]
pub struct Login {
    /// Login name.
    pub user: String,
    /// Where the password is.
    pub password_file: Option<PathBuf>,
}

/// A client in a session: the one that `holdfast login` began, when it still holds, or one of its own.
///
/// # Errors
/// When there is no password, or the node refuses it.
pub async fn enter(client: Client, login: &Login) -> Result<Client> {
    if login.password_file.is_none()
        && env::var_os(PASSWORD).is_none()
        && let Ok(token) = fs::read_to_string(file(&client)?)
    {
        let entered = client.clone().with_token(token.trim().to_owned());
        match entered.get("/api/v1/session").await {
            Ok(_) => return Ok(entered),
            Err(error) if is_over(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let token = begin(&client, login).await?;
    Ok(client.with_token(token))
}

fn is_over(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::UNAUTHORIZED)
}

/// Begins a session and keeps it for later commands. Returns where.
///
/// # Errors
/// As [`enter`], or when it cannot be kept.
pub async fn login(client: &Client, login: &Login) -> Result<PathBuf> {
    let token = begin(client, login).await?;
    let path = file(client)?;
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("making {}", dir.display()))?;
    }
    // A file that is there already may be readable by others.
    let _ = fs::remove_file(&path);
    let kept = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut kept = kept.with_context(|| format!("making {}", path.display()))?;
    kept.write_all(token.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Ends the kept session on its node and forgets it. Whether there was one.
///
/// # Errors
/// When it cannot be removed, or the node does not answer; then it is forgotten all the same.
pub async fn logout(client: Client) -> Result<bool> {
    let path = file(&client)?;
    let token = match fs::read_to_string(&path) {
        Ok(token) => token,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    match client.with_token(token.trim().to_owned()).delete("/api/v1/session").await {
        Err(error) if !is_over(&error) => Err(error),
        _ => Ok(true),
    }
}

async fn begin(client: &Client, login: &Login) -> Result<String> {
    let password = password(login)?;
    let session: Value =
        client.post("/api/v1/session", Some(&json!({ "user": login.user, "password": password }))).await?;
    Ok(session["token"].as_str().context("the node gave no session")?.to_owned())
}

fn file(client: &Client) -> Result<PathBuf> {
    let dir = match (env::var_os(SESSION_DIR), env::var_os("XDG_STATE_HOME"), env::var_os("HOME")) {
        (Some(dir), _, _) => PathBuf::from(dir),
        (None, Some(state), _) => Path::new(&state).join("holdfast"),
        (None, None, Some(home)) => Path::new(&home).join(".local/state/holdfast"),
        (None, None, None) => {
            bail!("neither {SESSION_DIR}, XDG_STATE_HOME nor HOME says where sessions are kept")
        }
    };
    Ok(dir.join(format!("session-{}", client.authority().replace(['[', ']', ':'], "_"))))
}

fn password(login: &Login) -> Result<String> {
    if let Some(path) = &login.password_file {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        return Ok(text.trim_end_matches(['\n', '\r']).to_owned());
    }
    if let Ok(password) = env::var(PASSWORD) {
        return Ok(password);
    }
    let input = io::stdin();
    if !input.is_terminal() {
        bail!("no session and no password: use `holdfast login`, --password-file or {PASSWORD}");
    }
    eprint!("Password of {}: ", login.user);
    let shown = tcgetattr(&input).context("asking the terminal")?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&input, SetArg::TCSAFLUSH, &hidden).context("hiding what is typed")?;
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    tcsetattr(&input, SetArg::TCSAFLUSH, &shown).context("showing what is typed again")?;
    eprintln!();
    read.context("reading the password")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
