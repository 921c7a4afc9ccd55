//! Repositories that cannot be had are told from versions that do not exist, and what was had once is not asked for again.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::gate::Gate;
use crate::support::git::Change::File;
use crate::support::git::{Fault, GitServer, Script, git_ok};

const NAMES: &[&str] = &["one", "two", "three", "four"];

fn server(root: &Path) -> GitServer {
    for name in NAMES {
        Script::new()
            .commit("main", &[("go.mod", File("module example.com/m\n"))])
            .tag("main", &["v1.0.0"])
            .commit("main", &[("a", File("a"))])
            .build(&root.join(name));
    }
    GitServer::start(root)
}

fn config(server: &GitServer, more: &str) -> String {
    let rule = format!("{{ match = \"git.example/{{name}}\", repo = \"{}/{{name}}.git\" }}", server.url());
    format!(
        "[upstreams.git]\ntype = \"vcs\"\nprivate = true\nrepositories = [{rule}]\n{more}\n\n[[routes]]\nmatch = [\"*\"]\nupstreams = [\"git\"]\n"
    )
}

#[test]
fn a_repository_that_fails_is_an_outage_and_one_that_is_not_there_is_not_found() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    let gate = Gate::start(&config(&server, ""));
    let mut wrong = Vec::new();
    for (name, status, wanted) in [("one", 500, 502), ("two", 403, 502), ("three", 401, 502), ("four", 404, 404), ("five", 0, 404)]
    {
        if status != 0 {
            server.fail(name, Fault::Status(status));
        }
        for part in ["@v/list", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip", "@v/main.info", "@latest"] {
            let answer = gate.get(&format!("/git.example/{name}/{part}"));
            if answer.status != wanted {
                wrong.push(format!("{name}/{part}: {status} became {}, not {wanted}: {}", answer.status, answer.text()));
            }
            // The repository's host may be known; the folder in which it is worked upon is nobody's business.
            if answer.text().contains(&gate.dir.path().display().to_string()) {
                wrong.push(format!("{name}/{part} tells too much: {}", answer.text()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn credentials_are_shown_to_the_host_that_they_are_for() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    server.require("ci", "a secret: with @ and %");
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("password"), "a secret: with @ and %\n").unwrap();
    let credentials =
        format!("credentials = {{ {:?} = {{ username = \"ci\", password_file = \"{{dir}}/password\" }} }}", server.address);
    let gate = Gate::start_in(dir, &config(&server, &credentials));
    for part in ["@v/list", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip", "@v/main.info", "@latest"] {
        let answer = gate.get(&format!("/git.example/one/{part}"));
        assert_eq!(answer.status, 200, "{part}: {}", answer.text());
        assert!(!answer.text().contains("secret"), "{part}: {}", answer.text());
    }
    assert!(!gate.log().contains("a secret"), "{}", gate.log());

    let gate = Gate::start(&config(&server, ""));
    for part in ["@v/list", "@v/v1.0.0.info", "@v/main.info", "@latest"] {
        let answer = gate.get(&format!("/git.example/one/{part}"));
        assert_eq!(answer.status, 502, "{part}: {}", answer.text());
    }
}

/// What a go command never asks for, or would not take itself.
#[rustfmt::skip]
const ASKED: &[(&str, u16)] = &[
    ("one/@v/main.mod", 404), ("one/@v/main.zip", 404), ("one/@v/v1.mod", 404), ("one/@v/v1.0.mod", 404),
    ("one/@v/v1.0.0+meta.mod", 404), ("one/@v/v1.0.0+meta.zip", 404), ("one/@v/v1.0.0.tar", 404), ("one/@v/v1.0.0", 404),
    ("one/@v/v1.0.1.mod", 404), ("one/@v/v1.0.1.zip", 404), ("one/@v/v1.0.0+incompatible.mod", 404), ("one/v2/@v/v2.0.0.mod", 404),
    ("one/sub/@v/v1.0.0.mod", 404), ("one/sub/@v/list", 404), ("one/v2/@latest", 404),
    ("new/@v/v1.0.0.info", 200), ("new/@v/v1.0.0.mod", 200), ("new/@v/v1.0.0.zip", 200), ("new/@v/list", 200),
];

#[test]
fn what_no_go_command_asks_for_is_answered_too() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    // Go commands refuse what was written for newer ones; those may have come meanwhile.
    Script::new()
        .commit("main", &[("go.mod", File("module example.com/new\n\ngo 1.999\n")), ("vendor/modules.txt", File("#\n"))])
        .tag("main", &["v1.0.0"])
        .build(&root.path().join("new"));
    let gate = Gate::start(&config(&server, ""));
    let answers = ASKED.iter().map(|(path, wanted)| (path, *wanted, gate.get(&format!("/git.example/{path}"))));
    // A list may also be empty where there is no module.
    // What is no version cannot have parts, which is told before anybody is asked.
    let malformed =
        |path: &str, status: u16| status == 400 && [".mod", ".zip"].iter().any(|part| path.strip_suffix(part).is_some());
    let right = |path: &str, wanted: u16, status: u16| {
        status == wanted || wanted == 404 && malformed(path, status) || path.ends_with("sub/@v/list") && status == 200
    };
    let wrong: Vec<String> = answers
        .filter(|(path, wanted, answer)| !right(path, *wanted, answer.status))
        .map(|(path, wanted, answer)| format!("{path}: {}, not {wanted}: {}", answer.status, answer.text()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_version_that_was_served_is_not_asked_for_again() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    let gate = Gate::start(&config(&server, ""));
    let all = || ["info", "mod", "zip"].map(|part| gate.get(&format!("/git.example/one/@v/v1.0.0.{part}")));
    let first = all();
    assert!(first.iter().all(|answer| answer.status == 200), "{:?}", first.each_ref().map(|answer| (answer.status, answer.text())));
    assert!(server.count("one", "info/refs") <= 4, "{:?}", server.asked());
    server.forget();
    // Neither an outage nor a moved tag changes what was served.
    let other = git_ok(&root.path().join("one"), &["rev-parse", "main"]);
    git_ok(&root.path().join("one"), &["tag", "-f", "v1.0.0", &other]);
    server.fail("one", Fault::Status(500));
    let second = all();
    for (first, second) in first.iter().zip(&second) {
        assert!(second.status == 200 && first.body == second.body, "{}: {}", second.status, second.text());
    }
    assert_eq!(server.count("one", "git-upload-pack"), 0, "{:?}", server.asked());
    // When it is there again, so are branches as they are then.
    server.heal("one");
    let (url, tip) = ("/git.example/one/@v/main.info", git_ok(&root.path().join("one"), &["rev-parse", "main"]));
    crate::support::eventually("the branch is asked for again", || gate.get(url).text().contains(&tip));
}

#[test]
fn a_branch_costs_its_server_one_fetch() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    let gate = Gate::start(&config(&server, ""));
    // Of one repository nothing is there yet, of the other a version without its history.
    assert_eq!(gate.get("/git.example/two/@v/v1.0.0.info").status, 200);
    for name in ["one", "two"] {
        server.forget();
        let answer = gate.get(&format!("/git.example/{name}/@v/main.info"));
        assert!(answer.status == 200 && answer.text().contains("v1.0.1-0."), "{name}: {}", answer.text());
        // The refs, unless they were heard a moment ago, and the fetch.
        assert!(server.count(name, "info/refs") <= 2, "{name}: {:?}", server.asked());
    }
}

#[test]
fn the_same_commit_makes_the_same_bytes() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    let zip = || {
        let answer = Gate::start(&config(&server, "")).get("/git.example/one/@v/v1.0.0.zip");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.body
    };
    assert_eq!(zip(), zip());
}
