//! Tokens of CI systems: those that go-jose makes are judged as the specifications and go-jose judge them, and none of them is ever
//! written down.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::thread;

use crate::helpers::Chance;
use crate::support::gate::Gate;
use crate::support::http::Answer;
use crate::support::upstream::{Reply, Upstream};
use crate::xjose::{Client, Issuer, Upstreams, WRONG, ask, basic, bearer, list, loopback};

/// Does the work for each item, many at once, since whoever is refused waits.
fn for_each<T: Sync>(items: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = Mutex::new(items.iter().enumerate());
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                loop {
                    let Some((n, item)) = next.lock().unwrap().next() else { break };
                    work(n, item);
                }
            });
        }
    });
}

/// Sends each token, as a password and by itself, and holds the answers and what the upstreams were asked against the verdicts.
fn judge(issuer: &Issuer, gate: &Gate, upstreams: &Upstreams) {
    let different = Mutex::new(Vec::new());
    for_each(&issuer.tokens, |n, row| {
        let ways = [("basic", basic(["", "gitlab-ci-token", "x y"][n % 3], &row.token)), ("bearer", bearer(&row.token))];
        for (way, authorization) in ways {
            let answer = ask(&gate.address, n, &list(format_args!("{way}/{n}")), &authorization);
            let text = match row.status() {
                200 => "v1.0.0\n",
                401 => WRONG,
                _ => "modgate: these credentials are good, but give no entrance here\n",
            };
            let login = if row.status() == 401 { "Basic realm=\"modgate\", charset=\"UTF-8\"" } else { "" };
            if (answer.status, &*answer.text(), answer.header("www-authenticate")) != (row.status(), text, login) {
                different.lock().unwrap().push(format!("{} as {way}: {} instead of {}", row.name, answer.status, row.status()));
            }
        }
    });
    let different = different.into_inner().unwrap();
    assert!(different.is_empty(), "{}", different.join("\n"));
    let good = issuer.tokens.iter().enumerate().filter(|(_, row)| row.want == "in");
    let wanted: BTreeSet<String> = good.flat_map(|(n, _)| ["basic", "bearer"].map(|way| list(format_args!("{way}/{n}")))).collect();
    assert!(wanted.len() > 40, "there are good ones of all kinds: {wanted:?}");
    assert_eq!(upstreams.payments.asked().into_iter().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(upstreams.public.asked(), Vec::<String>::new());
    let heads = upstreams.payments.heads().concat().to_ascii_lowercase();
    assert!(!heads.contains("authorization"), "{heads}");
}

#[test]
fn each_token_is_judged_as_the_specifications_say_by_keys_of_a_file() {
    let elsewhere = Upstream::start();
    let issuer = Issuer::new("ci", &elsewhere.url());
    let dir = tempfile::tempdir().unwrap();
    issuer.write(&dir.path().join("keys.json"));
    let upstreams = Upstreams::start();
    let auth = issuer.table("ci", "jwks_file = \"keys.json\"", "");
    let gate = Gate::start_in(dir, &upstreams.config(&auth, &["ci"]));
    judge(&issuer, &gate, &upstreams);
    assert_eq!(elsewhere.asked(), Vec::<String>::new(), "nobody goes where a token says");
}

#[test]
fn each_token_is_judged_as_the_specifications_say_by_keys_of_a_server() {
    let (server, elsewhere) = (Upstream::start(), Upstream::start());
    let issuer = Issuer::new("ci", &elsewhere.url());
    elsewhere.otherwise(Reply::Good(issuer.small.to_string().into_bytes()));
    server.set("/keys", issuer.set());
    let upstreams = Upstreams::start();
    let auth = issuer.table("ci", &format!("jwks_url = \"{}/keys\"", server.url()), "");
    let gate = Gate::start(&upstreams.config(&auth, &["ci"]));
    judge(&issuer, &gate, &upstreams);
    assert_eq!(elsewhere.asked(), Vec::<String>::new(), "nobody goes where a token says");
    assert!(server.heads().iter().all(|head| head.starts_with("GET /keys HTTP/1.1\r\n")));
    assert!(!server.heads().concat().to_ascii_lowercase().contains("authorization"));
}

#[test]
fn claims_of_an_issuer_let_in_who_is_of_no_team_and_two_issuers_may_go_by_one_name() {
    let [one, two, three] = ["one", "two", "three"].map(|word| Issuer::new(word, "http://127.0.0.1:1/"));
    let dir = tempfile::tempdir().unwrap();
    one.write(&dir.path().join("one.json"));
    two.write(&dir.path().join("two.json"));
    let upstreams = Upstreams::start();
    let both = "claims = { project_path = [\"payments/*\", \"m?ps/api\"] }";
    let auth = format!(
        "{}{}",
        one.table("one", "jwks_file = \"{dir}/one.json\"", both),
        two.table("two", "jwks_file = \"{dir}/two.json\"", "")
    );
    let gate = Gate::start_in(dir, &upstreams.config(&auth, &["one", "two"]));
    let said_of = |source: usize, path: &str, issuer: &Issuer, token: &str| {
        let answer = ask(&gate.address, source, path, &bearer(issuer.token(token)));
        (answer.status, answer.text())
    };
    let said = |source: usize, issuer: &Issuer, token: &str| said_of(source, &list(format_args!("m{source}")), issuer, token);
    assert_eq!(said(1, &one, "ES256"), (200, "v1.0.0\n".into()), "a team's job has the team's upstream");
    let open = "/open.example/m/@v/list";
    assert_eq!(said_of(2, open, &one, "other project"), (200, "v1.2.0\n".into()), "another's has everybody's");
    let outside = "modgate: pay.example/m2/@v/list: this module path is outside the routes of whoever asks\n";
    assert_eq!(said(2, &one, "other project"), (403, outside.into()));
    assert_eq!(said(3, &one, "no project").0, 403);
    assert_eq!(said(4, &one, "project's group").0, 403, "the issuer's own claims are wanted of all");
    assert_eq!(said(5, &two, "ES256"), (200, "v1.0.0\n".into()));
    assert_eq!(said(6, &two, "no kid, EdDSA"), (200, "v1.0.0\n".into()));
    assert_eq!(said_of(7, open, &two, "other project").0, 403, "what one issuer lets in the other does not");
    assert_eq!(said(8, &two, "expired").0, 401);
    assert_eq!(said(9, &three, "ES256").0, 401, "a third has the name and none of the keys");
    assert_eq!(said(10, &three, "no kid, RS256").0, 401);
    assert_eq!(upstreams.payments.asked(), [1, 5, 6].map(|n| list(format_args!("m{n}"))));
    assert_eq!(upstreams.public.asked(), [open]);
}

/// Ways of a token that has been changed in one place, at each of its places.
fn changed(token: &str, chance: &mut Chance) -> Vec<String> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    let bytes = token.as_bytes();
    let with = |at: usize, byte: u8| [&bytes[..at], &[byte], &bytes[at + 1..]].concat();
    let mut all = BTreeSet::new();
    for at in 0..bytes.len() {
        // The next letter is the smallest change of the bits that it stands for; the last letter's lowest bits may say nothing.
        let place = letters.iter().position(|letter| *letter == bytes[at]).unwrap();
        let next = with(at, if bytes[at] == b'.' { b'-' } else { letters[place ^ 1] });
        all.insert(bearer(&String::from_utf8(next).unwrap()));
        let other = chance.of(letters);
        match chance.below(5) {
            0 => all.insert(basic("u", with(at, bytes[at] ^ 0x80))),
            1 => all.insert(basic("u", with(at, bytes[at] ^ (1 << chance.below(7))))),
            2 => all.insert(bearer(&String::from_utf8(with(at, other)).unwrap())),
            3 => all.insert(basic("u", [&bytes[..at], &[other], &bytes[at..]].concat())),
            _ => all.insert(bearer(&token[..at])) && all.insert(basic("u", [&bytes[..at], &bytes[at + 1..]].concat())),
        };
    }
    all.retain(|way| *way != bearer(token) && *way != basic("u", token));
    all.into_iter().collect()
}

#[test]
fn a_token_that_was_changed_anywhere_is_refused() {
    let issuer = Issuer::new("ci", "http://127.0.0.1:1/");
    let dir = tempfile::tempdir().unwrap();
    issuer.write(&dir.path().join("keys.json"));
    let upstreams = Upstreams::start();
    let gate = Gate::start_in(dir, &upstreams.config(&issuer.table("ci", "jwks_file = \"keys.json\"", ""), &["ci"]));
    let names = ["RS256", "PS256", "ES256", "ES384", "EdDSA", "no kid, EdDSA"];
    let mut chance = Chance(0x6A09_E667_F3BC_C909);
    let ways: Vec<String> = names.iter().flat_map(|name| changed(issuer.token(name), &mut chance)).collect();
    assert!(ways.len() > 5000, "{}", ways.len());
    // An address may be wrong thirty times. Each has a connection that goes on after every refusal.
    let next = Mutex::new(ways.chunks(28).enumerate());
    let different = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                loop {
                    let Some((n, chunk)) = next.lock().unwrap().next() else { break };
                    let mut client = Client::from(loopback(n), &gate.address);
                    for way in chunk {
                        let answer = client.ask(&list("changed"), way);
                        if (answer.status, answer.whole, answer.text().as_str()) != (401, true, WRONG) {
                            different.lock().unwrap().push(format!("{}: {way}", answer.status));
                        }
                    }
                }
            });
        }
    });
    let different = different.into_inner().unwrap();
    assert!(different.is_empty(), "{} of {}:\n{}", different.len(), ways.len(), different.join("\n"));
    assert_eq!(upstreams.payments.asked(), Vec::<String>::new());
    for name in names {
        assert_eq!(ask(&gate.address, 0, &list("good"), &bearer(issuer.token(name))).status, 200, "{name}");
    }
    assert_eq!(upstreams.payments.asked(), [list("good")]);
    assert!(!gate.log().contains("panicked"), "{}", gate.log());
}

/// The tokens of which a text has a piece.
fn found_in<'i>(issuer: &'i Issuer, text: &str) -> Vec<&'i str> {
    let has = |token: &str| {
        let pieces = token.split('.').filter(|piece| piece.len() > 40).map(|piece| piece.get(..40).unwrap_or(piece).to_owned());
        let coded = basic("u", token);
        let coded = coded["Basic ".len()..].get(8..60).unwrap_or(&coded).to_owned();
        pieces.chain([coded]).any(|piece| text.contains(&piece))
    };
    issuer.tokens.iter().filter(|row| has(&row.token)).map(|row| row.name.as_str()).collect()
}

#[test]
fn no_token_is_ever_written_down() {
    for format in ["text", "json"] {
        let server = Upstream::start();
        let issuer = Issuer::new("ci", &server.url());
        server.set("/keys", issuer.set());
        let upstreams = Upstreams::start();
        let auth = issuer.table("ci", &format!("jwks_url = \"{}/keys\"", server.url()), "");
        let more = format!(
            "[log]\nlevel = \"trace\"\nformat = \"{format}\"\n[audit]\nfile = \"{{dir}}/audit\"\ninclude = \"all\"\n{auth}"
        );
        let mut gate = Gate::start(&upstreams.config(&more, &["ci"]));
        let answers = Mutex::new(Vec::<Answer>::new());
        for_each(&issuer.tokens, |n, row| {
            for authorization in [bearer(&row.token), basic("u", &row.token)] {
                let answer = ask(&gate.address, n, &list(n), &authorization);
                assert_eq!(answer.status, row.status(), "{}", row.name);
                answers.lock().unwrap().push(answer);
            }
        });
        gate.stop();
        let (log, audit) = (gate.log(), fs::read_to_string(gate.dir.path().join("audit")).unwrap());
        for answer in answers.into_inner().unwrap() {
            assert_eq!(found_in(&issuer, &format!("{:?}{}", answer.headers, answer.text())), Vec::<&str>::new());
        }
        assert!(log.contains("its signature is wrong") && log.contains("ci:project_path:payments/api"), "{log}");
        assert!(audit.contains("its signature is wrong") && audit.contains("ci:project_path:payments/api"), "{audit}");
        assert_eq!(audit.lines().count(), 2 * issuer.tokens.len(), "each is noted");
        // Each line of the audit is JSON, whatever a token has in it.
        audit.lines().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
        assert_eq!(found_in(&issuer, &log), Vec::<&str>::new(), "in the log:\n{log}");
        assert_eq!(found_in(&issuer, &audit), Vec::<&str>::new(), "in the audit:\n{audit}");
        for text in [&log, &audit] {
            assert!(text.contains("forged"), "what a token's header says of its algorithm is told");
            assert!(!text.contains('\u{1b}') && !text.contains('\r'), "and has no line of its own");
            assert!(!text.lines().any(|line| line.starts_with("forged")), "{text}");
        }
    }
}

#[test]
fn a_set_of_keys_that_are_all_too_small_is_told_at_the_start() {
    let issuer = Issuer::new("ci", "http://127.0.0.1:1/");
    let dir = tempfile::tempdir().unwrap();
    issuer.write(&dir.path().join("keys.json"));
    let upstreams = Upstreams::start();
    let gate = Gate::start_in(dir, &upstreams.config(&issuer.table("ci", "jwks_file = \"keys.json\"", ""), &["ci"]));
    let good = gate.command(&["check"]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    fs::write(gate.dir.path().join("keys.json"), issuer.small.to_string()).unwrap();
    let bad = gate.command(&["check"]);
    let said = String::from_utf8_lossy(&bad.stderr).into_owned() + &String::from_utf8_lossy(&bad.stdout);
    assert!(!bad.status.success() && said.contains("RSA from 2048 bits"), "no token could be verified by it:\n{said}");
}
