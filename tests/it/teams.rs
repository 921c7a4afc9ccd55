//! Teams: each is answered by its own routes, and by nothing that another one fetched. What is private to a team is nobody else's to
//! see, and nobody outside hears of it by others.

use rustix::process::Signal;

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::http::{Answer, request};
use crate::support::modules::Module;
use crate::support::people::{bearer, token};
use crate::support::sumdb::Sumdb;
use crate::support::upstream::{Reply, Upstream};

/// Two teams with private upstreams, a third with nothing of its own, people of no team, and a public upstream that would say
/// anything to anybody.
struct World {
    gate: Gate,
    ledger: Upstream,
    atlas: Upstream,
    public: Upstream,
    database: Upstream,
    payments: String,
    maps: String,
    tools: String,
    staff: String,
}

fn core() -> Module {
    Module::new("pay.example/core", "v1.0.0").bulk(200_000)
}

/// The same module path at both teams' upstreams, with other contents.
fn both(of: &str) -> Module {
    Module::new("lib.example/both", "v1.2.0").file("whose.txt", of)
}

/// Every question about a module that there is.
fn questions(module: &str) -> Vec<String> {
    let of_module = ["@v/list", "@latest", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip", "@v/main.info", "@v/v1.info"];
    let asked = of_module.iter().map(|ask| format!("/{module}/{ask}")).collect::<Vec<_>>();
    let cached = asked.iter().map(|path| format!("/cached-only{path}")).collect::<Vec<_>>();
    [asked, cached, vec![format!("/sumdb/sum.example.org/lookup/{module}@v1.0.0")]].concat()
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut make = |name: &str| token(&dir.path().join(format!("{name}.tokens")), name);
        let [payments, maps, tools, staff] = ["payments", "maps", "tools", "staff"].map(&mut make);
        let ledger = Upstream::serving(&[core(), both("payments")]);
        ledger.set("/pay.example/core/@v/main.info", Reply::Good(core().info()));
        let atlas = Upstream::serving(&[Module::new("maps.example/tiles", "v1.0.0"), both("maps")]);
        let public = Upstream::serving(&[Module::new("example.com/open", "v1.0.0"), Module::new("pay.example/core", "v9.9.9")]);
        let mut sums = Sumdb::knowing(&[Module::new("example.com/open", "v1.0.0")]);
        sums.add(&core());
        let database = sums.serve();
        let text = [
            "# shared listener\n[auth]\nanonymous = true\ntokens_file = \"{dir}/staff.tokens\"\n",
            &sums.table(&database),
            &upstream("ledger", &ledger.url(), "private = true\n"),
            &upstream("atlas", &atlas.url(), "private = true\n"),
            &upstream("public", &public.url(), ""),
            &route("*", &["public"], "verify = \"off\""),
            "[teams.payments]\nprefix = \"payments\"\nhosts = [\"pay.localhost\"]\ntokens_file = \"{dir}/payments.tokens\"\n",
            "routes = [{ match = [\"pay.example,lib.example\"], upstreams = [\"ledger\"] }]\n",
            "[teams.maps]\nprefix = \"maps\"\ntokens_file = \"{dir}/maps.tokens\"\n",
            "routes = [{ match = [\"maps.example,lib.example\"], upstreams = [\"atlas\"] }]\n",
            "[teams.tools]\nprefix = \"tools\"\ntokens_file = \"{dir}/tools.tokens\"\n",
        ]
        .concat();
        let gate = Gate::start_in(dir, &text);
        Self { gate, ledger, atlas, public, database, payments, maps, tools, staff }
    }

    fn ask(&self, path: &str, token: Option<&str>) -> Answer {
        self.ask_by("GET", path, token)
    }

    fn ask_by(&self, method: &str, path: &str, token: Option<&str>) -> Answer {
        let authorization = token.map(bearer);
        let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("Authorization", value.as_str())).collect();
        request(&self.gate.address, method, path, &headers)
    }

    /// What all upstreams but the team's own, and the database, were told of a name.
    fn told(&self, name: &str) -> Vec<String> {
        let others = [&self.atlas, &self.public, &self.database];
        others.iter().flat_map(|server| server.asked()).filter(|path| path.contains(name)).collect()
    }
}

#[test]
fn what_is_one_teams_is_nobody_elses_on_any_endpoint() {
    let world = World::new();
    // A member has it all, twice, so that memory and disk have it too.
    for _ in 0..2 {
        for path in questions("pay.example/core") {
            for path in [path.clone(), format!("/payments{path}")] {
                let answer = world.ask(&path, Some(&world.payments));
                let wanted = if path.contains("/sumdb/") { 404 } else { 200 };
                assert_eq!((answer.status, answer.whole), (wanted, true), "{path}: {}", answer.text());
            }
        }
        assert!(world.ask(&core().url("zip"), Some(&world.payments)).body == core().zip());
    }
    eventually("it is kept", || world.gate.cache("ledger").join("pay.example/core/@v/v1.0.0.zip").is_file());
    world.ledger.forget();
    let callers = [None, Some(&world.staff), Some(&world.maps), Some(&world.tools)];
    let prefixes = ["", "/payments", "/maps", "/tools"];
    let mut asked = 0;
    for caller in callers {
        for prefix in prefixes {
            for path in questions("pay.example/core").iter().chain(&["/pay.example/core?go-get=1".to_owned()]) {
                for method in ["GET", "HEAD"] {
                    let answer = world.ask_by(method, &format!("{prefix}{path}"), caller.map(String::as_str));
                    let text = answer.text();
                    assert!(matches!(answer.status, 401 | 403 | 404), "{method} {prefix}{path}: {} {text}", answer.status);
                    assert!(!text.contains("ledger") && !text.contains(&world.ledger.address), "{prefix}{path}: {text}");
                    assert!(!text.contains("v1.0.0\"") && answer.header("etag").is_empty(), "{prefix}{path}: {text}");
                    asked += 1;
                }
            }
        }
        let explained = world.ask("/-/explain?module=pay.example/core@v1.0.0", caller.map(String::as_str));
        let text = explained.text();
        assert!(!text.contains("ledger") && !text.contains("h1:") && !text.contains("\"status\": 200"), "{text}");
        for team in ["payments", "payments%00", "nobody"] {
            let path = format!("/-/explain?module=pay.example/core@v1.0.0&team={team}");
            let answer = world.ask(&path, caller.map(String::as_str));
            assert!(matches!(answer.status, 400 | 401 | 403) && !answer.text().contains("ledger"), "{team}: {}", answer.text());
        }
    }
    assert_eq!(asked, 4 * 4 * 16 * 2);
    assert_eq!(world.ledger.asked(), Vec::<String>::new(), "nobody's question reached it");
    assert_eq!(world.told("pay.example"), Vec::<String>::new(), "nobody outside heard of it");
    // Its own member is told all of it.
    let explained = world.ask("/-/explain?module=pay.example/core@v1.0.0", Some(&world.payments)).text();
    assert!(explained.contains("teams.payments.routes[0]") && explained.contains("ledger"), "{explained}");
}

#[test]
fn one_path_is_each_teams_own_module() {
    let world = World::new();
    for _ in 0..3 {
        for (token, of) in [(&world.payments, "payments"), (&world.maps, "maps")] {
            for path in [both(of).url("zip"), format!("/{of}{}", both(of).url("zip"))] {
                assert!(world.ask(&path, Some(token)).body == both(of).zip(), "{path} of {of}");
            }
        }
        // It is private to teams that these are not of, and the public upstream is not asked.
        for token in [None, Some(world.tools.as_str())] {
            assert_eq!(world.ask(&both("").url("zip"), token).status, 403);
        }
    }
    assert_eq!(world.public.asked(), Vec::<String>::new());
}

#[test]
fn what_is_shared_is_fetched_once_for_all() {
    let world = World::new();
    let open = Module::new("example.com/open", "v1.0.0");
    let callers = [None, Some(&world.staff), Some(&world.payments), Some(&world.maps), Some(&world.tools)];
    for caller in callers {
        assert!(world.ask(&open.url("zip"), caller.map(String::as_str)).body == open.zip());
        let looked_up = world.ask("/sumdb/sum.example.org/lookup/example.com/open@v1.0.0", caller.map(String::as_str));
        assert_eq!(looked_up.status, 200);
    }
    assert_eq!(world.public.count(&open.url("zip")), 1);
}

#[test]
fn a_request_is_of_the_team_that_it_is_addressed_to_or_else_its_senders() {
    let world = World::new();
    let path = core().url("info");
    let status = |path: &str, token: Option<&str>, host: &str| {
        let mut headers = vec![("Host", host)];
        let authorization = token.map(bearer);
        headers.extend(authorization.iter().map(|value| ("Authorization", value.as_str())));
        let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{}\r\n", lines.concat());
        crate::support::http::raw(&world.gate.address, head.as_bytes(), false).status
    };
    let (payments, maps) = (Some(world.payments.as_str()), Some(world.maps.as_str()));
    assert_eq!(status(&path, payments, "x"), 200);
    assert_eq!(status(&path, payments, "pay.localhost"), 200);
    assert_eq!(status(&path, payments, "PAY.localhost:8080"), 200);
    assert_eq!(status(&path, None, "pay.localhost"), 401, "a team with members is for them");
    assert_eq!(status(&path, maps, "pay.localhost"), 403);
    assert_eq!(status(&format!("/maps{path}"), payments, "pay.localhost"), 403, "the path counts more than the host");
    assert_eq!(status(&format!("http://pay.localhost{path}"), maps, "maps.localhost"), 403, "an absolute form names the host");
    assert_eq!(status(&path, Some("modgate_nonsense"), "x"), 401, "who says who they are has to be right");
    for odd in ["/payments", "/payments/", "//payments/x", "/Payments/x.y/z/@v/list", "/payments%2fpay.example/core/@v/list"] {
        assert!(matches!(status(odd, payments, "x"), 400 | 404), "{odd}");
    }
    let told = status(&format!("/%70ayments{path}"), maps, "x");
    assert!(matches!(told, 400 | 403 | 404), "{told}");
    assert_eq!(world.told("pay.example"), Vec::<String>::new());
}

#[test]
fn a_team_has_policy_and_limits_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| token(&dir.path().join("t.tokens"), name));
    let up = Upstream::serving(&[
        Module::new("example.com/m", "v1.0.0"),
        Module::new("example.com/m", "v1.1.0"),
        Module::new("example.com/evil", "v1.0.0"),
    ]);
    let text = [
        "[auth]\nanonymous = true\n[policy]\ndeny = [\"example.com/evil\"]\n",
        &upstream("u", &up.url(), ""),
        &route("*", &["u"], ""),
        "[teams.strict]\nprefix = \"strict\"\npolicy = { deny = [\"example.com/m@v1.1.0\"] }\n",
        "[teams.alone]\nprefix = \"alone\"\ninherit = false\nroutes = [{ match = [\"example.com/m,example.com/evil\"], upstreams = [\"u\"] }]\n",
        "[teams.slow]\ntokens_file = \"{dir}/t.tokens\"\nlimits = { per_client = { requests = 1, per = \"1h\", burst = 3 }, all = { requests = 1, per = \"1h\", burst = 5 } }\n",
    ]
    .concat();
    let gate = Gate::start_in(dir, &text);
    assert_eq!(gate.get("/example.com/m/@v/list").text(), "v1.0.0\nv1.1.0\n");
    for _ in 0..2 {
        assert_eq!(gate.get("/strict/example.com/m/@v/list").text(), "v1.0.0\n");
        assert_eq!(gate.get("/strict/example.com/m/@v/v1.1.0.zip").status, 403);
        assert_eq!(gate.get("/example.com/m/@v/v1.1.0.zip").status, 200);
        assert_eq!(gate.get("/strict/example.com/evil/@v/list").status, 403, "what is denied to all stays denied");
        let alone = gate.get("/alone/example.com/evil/@v/v1.0.0.mod");
        assert_eq!(alone.status, 403, "for those too who inherit nothing else");
    }
    let outside = gate.get("/alone/example.com/other/@v/list");
    assert_eq!(outside.status, 403);
    assert!(outside.text().contains("outside the routes"), "{}", outside.text());
    let ask = |token: &str| request(&gate.address, "GET", "/example.com/m/@v/list", &[("Authorization", &bearer(token))]);
    let statuses: Vec<u16> = [&a, &a, &a, &a, &b, &b, &b].into_iter().map(|token| ask(token).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 200, 200, 429], "three each, and five together");
    let refused = ask(&a);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(gate.get("/example.com/m/@v/list").status, 200, "others are not its business");
    // What was counted is not forgotten with a reload that does not touch it.
    gate.rewrite(&text.replace("[policy]", "[cache]\nlist_ttl = \"2m\"\n\n[policy]"));
    gate.signal(Signal::HUP);
    eventually("it is read again", || gate.log().contains("is in force"));
    assert_eq!(ask(&a).status, 429);
}

#[test]
fn a_name_that_is_private_to_a_team_can_be_opened_to_others_by_a_route_of_their_own() {
    let world_of = |more: &str| {
        let (inner, public) = (Upstream::serving(&[core()]), Upstream::serving(&[Module::new("pay.example/sdk", "v1.0.0")]));
        let text = [
            &upstream("in", &inner.url(), "private = true\n"),
            &upstream("out", &public.url(), ""),
            more,
            &route("*", &["out"], ""),
            "[teams.payments]\nprefix = \"payments\"\nroutes = [{ match = [\"pay.example\"], upstreams = [\"in\"] }]\n",
        ]
        .concat();
        (Gate::start(&text), public)
    };
    let sdk = Module::new("pay.example/sdk", "v1.0.0");
    let (gate, public) = world_of("");
    assert_eq!(gate.get(&sdk.url("mod")).status, 403);
    assert_eq!(gate.get("/pay.example/@v/list").status, 403);
    assert_eq!(public.asked(), Vec::<String>::new());
    let said = gate.command(&["explain", "pay.example/sdk@v1.0.0"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("fenced off: it is private to a team"), "{said:?}");
    // What is private to all is so for a team too that has a route for everything else.
    let (inner, public) = (Upstream::serving(&[core()]), Upstream::serving(&[core()]));
    let text = [
        &upstream("in", &inner.url(), "private = true\n"),
        &upstream("out", &public.url(), ""),
        &route("pay.example", &["in"], ""),
        "[teams.a]\nprefix = \"a\"\nroutes = [{ match = [\"*\"], upstreams = [\"out\"] }]\n",
        "[teams.b]\nprefix = \"b\"\ninherit = false\nroutes = [{ match = [\"*\"], upstreams = [\"out\"] }]\n",
    ]
    .concat();
    let gate = Gate::start(&text);
    for team in ["a", "b"] {
        assert_eq!(gate.get(&format!("/{team}{}", core().url("mod"))).status, 403, "{team}");
    }
    assert_eq!((gate.get(&core().url("mod")).status, public.asked().len()), (200, 0));
    let (gate, _) = world_of(&route("pay.example/sdk", &["out"], ""));
    assert_eq!(gate.get(&sdk.url("mod")).status, 200);
    assert_eq!(gate.get(&core().url("mod")).status, 403, "and no more than that");
    let said = gate.command(&["check"]);
    let warned = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(warned.contains("routes[0]: \"pay.example\" is private to the team payments"), "{warned}");
    assert!(warned.contains("teams.payments: whoever reaches modgate is answered by its private upstreams"), "{warned}");
    let printed = String::from_utf8_lossy(&said.stdout).into_owned();
    for wanted in ["team        payments: at /payments/; for whoever asks there", "own [0]", "all [1]", "fence     pay.example"] {
        assert!(printed.contains(wanted), "missing {wanted:?} in\n{printed}");
    }
}
