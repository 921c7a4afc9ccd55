//! Who people are: passwords, tokens, how failures are answered, what is remembered and what a reload forgets; and what is written
//! down of it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::http::{Answer, request};
use crate::support::modules::Module;
use crate::support::people::{basic, bearer, token, user};
use crate::support::sumdb::zip_sum;
use crate::support::upstream::{Reply, Upstream};

const LIST: &str = "/example.com/m/@v/list";

fn module() -> Module {
    Module::new("example.com/m", "v1.0.0")
}

fn text(up: &Upstream, more: &str) -> String {
    format!("{more}{}{}", upstream("u", &up.url(), "private = true\n"), route("*", &["u"], ""))
}

fn ask(gate: &Gate, path: &str, authorization: &str) -> Answer {
    request(&gate.address, "GET", path, &[("Authorization", authorization)])
}

#[test]
fn passwords_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    user(&dir.path().join("people"), "ann", "open sesame");
    user(&dir.path().join("people"), "bob", "bob:s, with a colon");
    let robot = token(&dir.path().join("robots"), "ci");
    let up = Upstream::serving(&[module()]);
    let gate = Gate::start_in(dir, &text(&up, "[auth]\nusers_file = \"people\"\ntokens_file = \"{dir}/robots\"\n"));
    for good in [
        basic("ann", "open sesame"),
        basic("bob", "bob:s, with a colon"),
        basic("anybody", &robot),
        basic("", &robot),
        bearer(&robot),
        bearer(&robot).replace("Bearer", "bEARER"),
    ] {
        assert_eq!(ask(&gate, LIST, &good).status, 200, "{good}");
    }
    let nobody = gate.get(LIST);
    assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, "Basic realm=\"modgate\", charset=\"UTF-8\""));
    assert_eq!(nobody.text(), "modgate: this needs a user and password, a token, or a client certificate\n");
    let wrong = ["Basic", "Digest x", "Basic !!!", "Bearer x"].map(str::to_owned).into_iter().chain([
        basic("ann", "open Sesame"),
        basic("ann", ""),
        basic("eve", "open sesame"),
        basic("ann", &robot[..robot.len() - 1]),
        bearer("open sesame"),
        bearer(&robot.to_uppercase()),
    ]);
    thread::scope(|scope| {
        for authorization in wrong {
            let gate = &gate;
            scope.spawn(move || {
                let started = Instant::now();
                let answer = ask(gate, LIST, &authorization);
                assert_eq!(
                    (answer.status, answer.text().as_str()),
                    (401, "modgate: a wrong user, password or token\n"),
                    "{authorization}"
                );
                assert!(started.elapsed() > Duration::from_millis(300), "who guesses is slowed down");
            });
        }
    });
    // Health is anybody's to ask; what it is good for without a person behind it.
    assert_eq!(crate::support::http::get(&gate.admin, "/-/healthz").status, 200);
    let log = gate.log();
    assert!(log.contains("a wrong password of user \\\"ann\\\"") || log.contains("a wrong password of user \"ann\""), "{log}");
    for secret in ["sesame", "colon", robot.as_str()] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
    let heads = up.heads().concat().to_lowercase();
    assert!(!heads.contains("authorization"), "{heads}");
}

#[test]
fn who_guesses_is_not_listened_to_for_a_while_and_who_is_known_is() {
    let dir = tempfile::tempdir().unwrap();
    user(&dir.path().join("people"), "ann", "sesame");
    let up = Upstream::serving(&[module()]);
    let gate = Gate::start_in(dir, &text(&up, "[auth]\nusers_file = \"people\"\n"));
    let known = basic("ann", "sesame");
    assert_eq!(ask(&gate, LIST, &known).status, 200);
    // The same one again and again counts once.
    let again: Vec<u16> = thread::scope(|scope| {
        let asking: Vec<_> = (0..60).map(|_| scope.spawn(|| ask(&gate, LIST, &basic("ann", "expired")).status)).collect();
        asking.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    assert_eq!(again, [401; 60]);
    let guesses: Vec<(u16, String)> = thread::scope(|scope| {
        let guess = |n: u32| ask(&gate, LIST, &bearer(&format!("guess-{n}")));
        let asking: Vec<_> = (0..60).map(|n| scope.spawn(move || guess(n))).collect();
        asking.into_iter().map(|asker| asker.join().unwrap()).map(|a| (a.status, a.header("retry-after").to_owned())).collect()
    });
    let refused: Vec<_> = guesses.iter().filter(|(status, _)| *status == 429).collect();
    assert!((20..=31).contains(&refused.len()), "some thirty are listened to: {guesses:?}");
    assert!(refused.iter().all(|(_, after)| after.parse::<u64>().is_ok_and(|after| after >= 1)));
    assert_eq!(ask(&gate, LIST, &basic("ann", "sesam")).status, 429);
    assert_eq!(ask(&gate, LIST, &known).status, 200, "who was right before is let in all the same");
    assert_eq!(gate.get(LIST).status, 401, "and who says nothing is told what is wanted");
}

#[test]
fn a_password_is_verified_once_for_all_who_send_it() {
    let dir = tempfile::tempdir().unwrap();
    // Some 400 ms on a slow machine each; eighty of them would take half a minute.
    fs::write(dir.path().join("people"), format!("ann:{}\n", bcrypt::hash("sesame", 12).unwrap())).unwrap();
    let up = Upstream::serving(&[module()]);
    let gate = Gate::start_in(dir, &text(&up, "[auth]\nusers_file = \"people\"\n"));
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..80 {
            scope.spawn(|| assert_eq!(ask(&gate, LIST, &basic("ann", "sesame")).status, 200));
        }
    });
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
}

#[test]
fn who_is_of_several_teams_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let [eve, staff] = ["eve", "staff"].map(|name| token(&dir.path().join("tokens"), name));
    let up = Upstream::serving(&[module()]);
    let teams = "# shared listener\n[auth]\ntokens_file = \"tokens\"\n[teams.a]\nprefix = \"a\"\ntokens = [\"eve\"]\n\
                 [teams.b]\nhosts = [\"b.localhost\"]\ntokens = [\"eve\"]\n[teams.open]\nprefix = \"open\"\n";
    let gate = Gate::start_in(dir, &text(&up, teams));
    let status = |path: &str, token: &str| ask(&gate, path, &bearer(token)).status;
    assert_eq!(status(&format!("/a{LIST}"), &eve), 200);
    let which = ask(&gate, LIST, &bearer(&eve));
    assert_eq!(
        (which.status, which.text().as_str()),
        (403, "modgate: whoever asks is of several teams; ask one of them: /a/, b.localhost\n")
    );
    assert_eq!((status(LIST, &staff), status(&format!("/a{LIST}"), &staff)), (200, 403));
    assert_eq!((status(&format!("/open{LIST}"), &staff), gate.get(&format!("/open{LIST}")).status), (200, 401));
    // So does who wants an explanation.
    let explained = |team: &str| ask(&gate, &format!("/-/explain?module=example.com/m{team}"), &bearer(&eve));
    assert_eq!((explained("").status, explained("&team=a").status, explained("&team=open").status), (403, 200, 200));
    assert!(explained("&team=b").text().contains("\"team\": \"b\""));
    assert_eq!(ask(&gate, "/-/explain?module=example.com/m&team=a", &bearer(&staff)).status, 403);
}

#[test]
fn a_file_that_was_missing_is_watched_too() {
    let up = Upstream::serving(&[module()]);
    let gate = Gate::start_watching(tempfile::tempdir().unwrap(), &text(&up, ""));
    assert_eq!(gate.get(LIST).status, 200);
    gate.rewrite(&text(&up, "[auth]\ntokens_file = \"tokens\"\n"));
    eventually("the log says that it is missing", || {
        gate.log().contains("auth.tokens_file") && gate.log().contains("the old one stays")
    });
    assert_eq!(gate.get(LIST).status, 200);
    let token = token(&gate.dir.path().join("tokens"), "ci");
    eventually("it is there now", || gate.get(LIST).status == 401);
    assert_eq!(ask(&gate, LIST, &bearer(&token)).status, 200);
}

#[test]
fn a_reload_lets_new_people_in_and_forgets_old_ones() {
    for watched in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        let old = token(&tokens, "old");
        let up = Upstream::serving(&[module()]);
        let text = text(&up, "[auth]\ntokens_file = \"tokens\"\n");
        let gate = if watched { Gate::start_watching(dir, &text) } else { Gate::start_in(dir, &text) };
        assert_eq!(ask(&gate, LIST, &bearer(&old)).status, 200);
        let again = |gate: &Gate| {
            if !watched {
                gate.signal(Signal::HUP);
            }
        };
        let new = replace(&tokens, "new");
        again(&gate);
        eventually("the new one is let in", || ask(&gate, LIST, &bearer(&new)).status == 200);
        assert_eq!(ask(&gate, LIST, &bearer(&old)).status, 401, "and the old one is not remembered");
        // A file that is no good changes nothing.
        fs::write(&tokens, "new:sha256:nonsense\n").unwrap();
        again(&gate);
        eventually("the log says so", || gate.log().contains("tokens:1: ") && gate.log().contains("the old one stays"));
        assert_eq!(ask(&gate, LIST, &bearer(&new)).status, 200);
        // Put right it counts.
        let last = replace(&tokens, "last");
        again(&gate);
        eventually("the last one is let in", || ask(&gate, LIST, &bearer(&last)).status == 200);
        assert_eq!(ask(&gate, LIST, &bearer(&new)).status, 401);
    }
}

/// Puts another file in the place of one, as container platforms do.
#[expect(clippy::disallowed_methods, reason = "it is not a file of the cache")]
fn replace(file: &Path, name: &str) -> String {
    let beside = file.with_extension("new");
    let _ = fs::remove_file(&beside);
    let text = token(&beside, name);
    fs::rename(&beside, file).unwrap();
    text
}

#[test]
fn clients_behind_a_trusted_proxy_are_told_apart() {
    let up = Upstream::serving(&[module()]);
    let limit = "[limits]\nper_client = { requests = 1, per = \"1h\", burst = 2 }\n";
    let behind = |trusted: &str| {
        let gate = Gate::start(&text(&up, &format!("# [server] trusted_proxies = [{trusted:?}]\n{limit}")));
        let ask = |client: &str| request(&gate.address, "GET", LIST, &[("X-Forwarded-For", client)]).status;
        [ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.2"), ask("192.0.2.3, 192.0.2.2")]
    };
    assert_eq!(behind("127.0.0.1"), [200, 200, 429, 200, 200]);
    assert_eq!(behind("10.0.0.0/8"), [200, 200, 429, 429, 429], "a stranger's word makes nobody another");
}

#[test]
fn what_was_downloaded_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let robot = token(&dir.path().join("tokens"), "ci");
    let large = Module::new("example.com/Large", "v1.0.0").bulk(3 << 20);
    let up = Upstream::serving(&[module(), large.clone()]);
    up.set(&Module::new("example.com/cut", "v1.0.0").url("zip"), Reply::Reset(large.zip(), 1 << 20));
    let more = "[audit]\nfile = \"audit.jsonl\"\n[auth]\nanonymous = true\n[teams.t]\nprefix = \"t\"\ntokens_file = \"tokens\"\n";
    let mut gate = Gate::start_in(dir, &text(&up, more));
    let path = |module: &Module, part: &str| format!("/t{}", module.url(part));
    for (path, wanted) in [
        (path(&large, "zip"), 200),
        (path(&large, "zip"), 200),
        (path(&module(), "mod"), 200),
        (path(&module(), "mod"), 200),
        (path(&module(), "list"), 404),
        (format!("/t{LIST}"), 200),
        (path(&Module::new("example.com/none", "v1.0.0"), "zip"), 404),
        (path(&Module::new("example.com/cut", "v1.0.0"), "zip"), 200),
    ] {
        let answer =
            request(&gate.address, "GET", &path, &[("Authorization", &bearer(&robot)), ("X-Request-Id", &path.replace('!', ""))]);
        assert_eq!(answer.status, wanted, "{path}");
        eventually("its sum is noted before it is asked for again", || {
            gate.cache(".sums/u").join(&large.url("zip")[1..]).is_file()
        });
    }
    assert_eq!(gate.get(&path(&module(), "mod")).status, 401);
    assert_eq!(gate.get(&module().url("zip")).status, 200);
    let file = gate.dir.path().join("audit.jsonl");
    gate.stop();
    let lines: Vec<serde_json::Value> =
        fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<String> = lines
        .iter()
        .map(|line| {
            let word = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
            [
                word("who"),
                word("team"),
                word("kind"),
                word("module"),
                word("version"),
                word("route"),
                word("upstream"),
                word("cache"),
                line["status"].to_string(),
                line["complete"].to_string(),
            ]
            .join(" ")
        })
        .collect();
    let all = "routes[0] \"*\"";
    assert_eq!(
        said,
        [
            format!("ci t zip example.com/Large v1.0.0 {all} u miss 200 true"),
            format!("ci t zip example.com/Large v1.0.0 {all} u hit 200 true"),
            format!("ci t mod example.com/m v1.0.0 {all} u miss 200 true"),
            format!("ci t mod example.com/m v1.0.0 {all} u memory 200 true"),
            format!("ci t zip example.com/none v1.0.0 {all} - miss 404 true"),
            format!("ci t zip example.com/cut v1.0.0 {all} u miss 200 false"),
            "- t mod example.com/m v1.0.0 - - - 401 true".to_owned(),
            format!("- - zip example.com/m v1.0.0 {all} u miss 200 true"),
        ]
    );
    let sums: Vec<_> = [0, 1, 7].iter().map(|n| lines[*n]["sum"].as_str().unwrap_or("-").to_owned()).collect();
    assert_eq!(sums, [zip_sum(&large), zip_sum(&large), zip_sum(&module())], "the first while it was still arriving");
    assert_eq!(lines[0]["bytes"].as_u64(), Some(large.zip().len() as u64));
    assert!(lines[5]["bytes"].as_u64() <= Some(1 << 20) && lines[5]["sum"].is_null());
    assert!(lines.iter().all(|line| line["client"] == "127.0.0.1" && line["ms"].is_number() && line["time"].is_string()));
    assert!(!fs::read_to_string(&file).unwrap().contains(&robot));
}
