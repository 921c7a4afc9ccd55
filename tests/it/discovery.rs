//! Repositories that pages name: how those are read, which of their words count, and where they may not lead.

use std::time::{Duration, Instant};

use crate::support::gate::Gate;
use crate::support::http::Answer;
use crate::support::pages::{Web, tag};
use crate::support::upstream::Reply;

/// How a page's module is answered.
#[derive(Clone, Copy)]
enum Is {
    /// With the versions of the repository.
    Found,
    /// With this status and these words.
    Refused(u16, &'static str),
}
use Is::{Found, Refused};

fn list(gate: &Gate, path: &str) -> Answer {
    gate.get(&format!("/{path}/@v/list"))
}

/// What is wrong with an answer.
fn wrong(answer: &Answer, wanted: Is) -> Option<String> {
    let text = answer.text();
    let right = match wanted {
        Found => answer.status == 200 && text == "v1.0.0\n",
        Refused(status, words) => answer.status == status && text.contains(words),
    };
    (!right).then(|| format!("{} {text}", answer.status))
}

/// A page's status, what is in it, and what becomes of its module. `{m}` is the module's path, `{git}` the good repository.
#[rustfmt::skip]
const PAGES: &[(&str, u16, &str, Is)] = &[
    ("plain", 200, "<meta name=\"go-import\" content=\"{m} git {git}\">", Found),
    ("on404", 404, "<meta name=\"go-import\" content=\"{m} git {git}\">", Found),
    ("on500", 500, "<meta name=\"go-import\" content=\"{m} git {git}\">", Found),
    ("unquoted", 200, "<meta name=go-import content='{m} git {git}'>", Found),
    ("single", 200, "<meta content='{m} git {git}' name='go-import' />", Found),
    ("upper", 200, "<HEAD><META NAME=\"go-import\" CONTENT=\"{m} git {git}\">", Found),
    ("newlines", 200, "<meta name=\"go-import\"\n content=\"\n{m}\n\tgit   {git}\n\">", Found),
    ("references", 200, "<meta name=\"go-import\" content=\"{m} git https&#58;//git&#x2e;test/one\">", Found),
    ("brokenafter", 200, "<meta name=\"go-import\" content=\"{m} git {git}\"><p <<< = 'x", Found),
    ("outside", 200, "</p><meta name=\"go-import\" content=\"{m} git {git}\">", Found),
    ("twice", 200, "<meta name=\"go-import\" content=\"{m} git\"><meta name=\"go-import\" content=\"{m} git {git}\">", Found),
    ("comment", 200, "<!-- <meta name=\"go-import\" content=\"{m} git {git}\"> -->", Refused(404, "no go-import")),
    ("comment404", 404, "<!-- <meta name=\"go-import\" content=\"{m} git {git}\"> -->", Refused(404, "answered 404")),
    ("inbody", 200, "</head><body><meta name=\"go-import\" content=\"{m} git {git}\">", Refused(404, "no go-import")),
    ("BODY", 200, "<BODY><meta name=\"go-import\" content=\"{m} git {git}\">", Refused(404, "no go-import")),
    ("two", 200, "<meta name=\"go-import\" content=\"{m} git\">", Refused(404, "no go-import")),
    ("five", 200, "<meta name=\"go-import\" content=\"{m} git {git} sub more\">", Refused(404, "no go-import")),
    ("othername", 200, "<meta name=\"Go-Import\" content=\"{m} git {git}\">", Refused(404, "no go-import")),
    ("otherpath", 200, "<meta name=\"go-import\" content=\"{m}x git {git}\">", Refused(404, "no go-import")),
    ("otherhost", 200, "<meta name=\"go-import\" content=\"y.test git {git}\">", Refused(404, "no go-import")),
    ("empty", 200, "", Refused(404, "no go-import")),
    ("same", 200, "<meta name=\"go-import\" content=\"{m} git {git}\"><meta name=\"go-import\" content=\"{m} git {git}\">", Refused(404, "multiple meta tags")),
    ("nested/in", 200, "<meta name=\"go-import\" content=\"x.test/nested git {git}\"><meta name=\"go-import\" content=\"{m} git {git}\">", Refused(404, "multiple meta tags")),
    ("abs", 200, "<meta name=\"go-import\" content=\"{m} git {git} /abs\">", Refused(404, "subdirectory")),
    ("option", 200, "<meta name=\"go-import\" content=\"{m} git {git} -x\">", Refused(404, "subdirectory")),
    ("up", 200, "<meta name=\"go-import\" content=\"{m} git {git} a/../../b\">", Refused(404, "subdirectory")),
    ("filed", 200, "<meta name=\"go-import\" content=\"{m} git file:///etc\">", Refused(404, "file URL")),
    ("path", 200, "<meta name=\"go-import\" content=\"{m} git /srv/git/one\">", Refused(404, "scheme")),
    ("scp", 200, "<meta name=\"go-import\" content=\"{m} git git.test:one\">", Refused(404, "scheme")),
    ("helper", 200, "<meta name=\"go-import\" content=\"{m} git ext::git-upload-pack\">", Refused(404, "scheme")),
    ("helper2", 200, "<meta name=\"go-import\" content=\"{m} git ext::https://git.test/one\">", Refused(404, "")),
    ("helper3", 200, "<meta name=\"go-import\" content=\"{m} git ext://git.test/one\">", Refused(404, "scheme")),
    ("dashed", 200, "<meta name=\"go-import\" content=\"{m} git -c://x\">", Refused(404, "")),
    ("dashedhost", 200, "<meta name=\"go-import\" content=\"{m} git ssh://-oProxyCommand=x/a\">", Refused(404, "")),
    ("password", 200, "<meta name=\"go-import\" content=\"{m} git https://u:hush@git.test/one\">", Refused(404, "")),
    ("query", 200, "<meta name=\"go-import\" content=\"{m} git {git}?x=y\">", Refused(404, "query")),
    ("plainhttp", 200, "<meta name=\"go-import\" content=\"{m} git http://git.test/one\">", Refused(404, "insecure")),
    ("plaingit", 200, "<meta name=\"go-import\" content=\"{m} git git://git.test/one\">", Refused(404, "insecure")),
    ("cvs", 200, "<meta name=\"go-import\" content=\"{m} cvs https://git.test/one\">", Refused(404, "unknown version control system")),
    ("modquery", 200, "<meta name=\"go-import\" content=\"{m} mod https://mod.test/?x=y\">", Refused(404, "module proxy")),
    ("modfragment", 200, "<meta name=\"go-import\" content=\"{m} mod https://mod.test/#x\">", Refused(404, "module proxy")),
    ("modhttp", 200, "<meta name=\"go-import\" content=\"{m} mod http://mod.test/\">", Refused(404, "module proxy")),
    ("modfile", 200, "<meta name=\"go-import\" content=\"{m} mod file:///etc\">", Refused(404, "module proxy")),
    ("s401", 401, "", Refused(502, "answered 401")),
    ("s403", 403, "", Refused(502, "answered 403")),
    ("s404", 404, "", Refused(404, "answered 404")),
    ("s410", 410, "", Refused(404, "answered 410")),
    ("s429", 429, "", Refused(502, "answered 429")),
    ("s500", 500, "", Refused(502, "answered 500")),
    ("s503", 503, "", Refused(502, "answered 503")),
];

#[test]
fn pages_are_read_as_the_go_command_reads_them() {
    let web = Web::new();
    let gate = web.gate("");
    let mut findings = Vec::new();
    for (name, status, page, wanted) in PAGES {
        let path = format!("x.test/{}", name.to_lowercase());
        let page = page.replace("{m}", &path).replace("{git}", "https://git.test/one");
        web.page(&path, Reply::Full(*status, vec![("content-type".into(), "text/html".into())], page.into_bytes()));
        let answer = list(&gate, &path);
        findings.extend(wrong(&answer, *wanted).map(|why| format!("{name}: {why}")));
        if answer.text().contains("hush") {
            findings.push(format!("{name} tells a password"));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(!gate.log().contains("hush"), "{}", gate.log());
}

#[test]
fn entries_say_where_the_root_is_and_the_roots_own_page_has_to_agree() {
    let web = Web::new();
    let gate = web.gate("");
    let page = |path: &str, inner: &str| web.page(path, Web::head(inner));
    let one = |prefix: &str| tag(&format!("{prefix} git https://git.test/one"));
    // The folder of the fourth field counts as the repository's top.
    page("x.test/whole", &tag("x.test/whole git https://git.test/one sub/dir"));
    page("x.test/whole/dir", &tag("x.test/whole git https://git.test/one sub"));
    let answer = list(&gate, "x.test/whole");
    assert_eq!((answer.status, answer.text().as_str()), (200, "v1.0.1\n"));
    page("x.test/agreed/sub/dir", &one("x.test/agreed"));
    page("x.test/agreed", &one("x.test/agreed"));
    let answer = list(&gate, "x.test/agreed/sub/dir");
    assert_eq!((answer.status, answer.text().as_str()), (200, "v1.0.1\n"), "{}", answer.text());
    // What the root's page says otherwise, or not at all.
    page("x.test/d1/pkg", &one("x.test/d1"));
    page("x.test/d1", &tag("x.test/d1 git https://git.test/two"));
    page("x.test/d2/pkg", &one("x.test/d2"));
    page("x.test/d2", "");
    page("x.test/d3/pkg", &one("x.test/d3"));
    page("x.test/d4/pkg", &one("x.test/d4"));
    page("x.test/d4", &tag("x.test/d4 git https://git.test/one sub"));
    page("x.test/d5/pkg", &one("x.test/d5"));
    page("x.test/d5", &(one("x.test/d5") + &one("x.test/d5/pkg")));
    page("x.test/d6/pkg", &one("x.test"));
    page("x.test", "");
    for (path, words) in [
        ("x.test/d1/pkg", "disagree"),
        ("x.test/d2/pkg", "disagree"),
        ("x.test/d3/pkg", "answered 404"),
        ("x.test/d4/pkg", "disagree"),
        ("x.test/d5/pkg", "disagree"),
        ("x.test/d6/pkg", "disagree"),
        ("x.test/whole/dir", "disagree"),
    ] {
        let answer = list(&gate, path);
        assert_eq!(wrong(&answer, Refused(404, words)), None, "{path}");
    }
    assert_eq!(web.git.count("two", "info/refs"), 0, "a repository that nobody may name is not asked");
}

#[test]
fn a_module_proxy_of_a_page_is_asked_for_the_whole_path() {
    let web = Web::new();
    let gate = web.gate("");
    let both = tag("x.test/mod git https://git.test/one") + &tag("x.test/mod mod https://mod.test/");
    web.page("x.test/mod", Web::head(&both));
    web.page("x.test/mod/Sub", Web::head(&both));
    for (path, version) in [("x.test/mod", "v1.2.3"), ("x.test/mod/!sub", "v1.2.4")] {
        for part in ["info", "mod", "zip"] {
            let answer = gate.get(&format!("/{path}/@v/{version}.{part}"));
            assert_eq!((answer.status, answer.whole), (200, true), "{path}: {}", answer.text());
        }
        assert_eq!(list(&gate, path).text(), format!("{version}\n"));
        assert_eq!(gate.get(&format!("/{path}/@v/v9.9.9.info")).status, 404);
    }
    assert!(web.modules.asked().contains(&"/x.test/mod/!sub/@v/v1.2.4.zip".to_owned()), "{:?}", web.modules.asked());
    assert_eq!(web.git.asked(), Vec::<String>::new(), "the proxy goes before the repository");
    // Two proxies are one too many; one for a part goes before a repository for the whole.
    web.page("x.test/p2/a", Web::head(&(tag("x.test/p2 mod https://mod.test") + &tag("x.test/p2/a mod https://mod.test"))));
    assert_eq!(wrong(&list(&gate, "x.test/p2/a"), Refused(404, "multiple meta tags")), None);
    let nested = tag("x.test/mod git https://git.test/one") + &tag("x.test/mod/Sub mod https://mod.test");
    let gate = web.gate("");
    web.page("x.test/mod/Sub", Web::head(&nested));
    assert_eq!(list(&gate, "x.test/mod/!sub").text(), "v1.2.4\n");
}

#[test]
fn redirects_of_pages_are_followed_within_bounds() {
    let web = Web::new();
    let gate = web.gate("");
    let to = |url: &str| Reply::Full(302, vec![("Location".into(), url.into())], Vec::new());
    web.page("x.test/moved", to("https://y.test/there?go-get=1"));
    web.page("y.test/there", Web::head(&tag("x.test/moved git https://git.test/one")));
    web.page("x.test/back", to("/back"));
    web.pages.set("/back", Web::head(&tag("x.test/back git https://git.test/one")));
    web.page("x.test/plain", to("http://y.test/there?go-get=1"));
    web.page("x.test/loop", to("https://x.test/loop?go-get=1"));
    web.page("x.test/file", to("file:///etc/hosts"));
    for hop in 0..12 {
        web.page(&format!("x.test/hop{hop}"), to(&format!("/hop{}?go-get=1", hop + 1)));
    }
    web.page("x.test/hop12", Web::head(&tag("x.test/hop2 git https://git.test/one")));
    for (path, wanted) in [
        ("x.test/moved", Found),
        ("x.test/back", Found),
        ("x.test/hop2", Found),
        ("x.test/hop0", Refused(502, "redirect")),
        ("x.test/plain", Refused(502, "https to http")),
        ("x.test/loop", Refused(502, "redirect")),
        ("x.test/file", Refused(502, "scheme")),
    ] {
        assert_eq!(wrong(&list(&gate, path), wanted), None, "{path}");
    }
    assert!(web.asked("x.test/loop") <= 11, "{}", web.asked("x.test/loop"));
}

#[test]
fn long_pages_are_read_as_far_as_tags_stand_and_late_ones_are_an_outage() {
    let web = Web::new();
    let gate = web.gate("connect = \"2s\"\nfirst_byte = \"400ms\"\nidle = \"400ms\"");
    let tag = |path: &str| tag(&format!("{path} git https://git.test/one"));
    let filler = "<p>hello</p>\n".repeat(400_000);
    web.page("x.test/long", Reply::Good(format!("<head>{}</head><body>{filler}", tag("x.test/long")).into_bytes()));
    web.page("x.test/late", Reply::Chunked(format!("<head>{filler}{}", tag("x.test/late")).into_bytes()));
    let many: String = (0..20_000).map(|at| tag(&format!("x.test/many{at}"))).collect();
    web.page("x.test/many", Web::head(&(tag("x.test/many") + &many)));
    let wide = format!("<meta name=\"go-import\" content=\"x.test/wide git https://git.test/{}\">", "a".repeat(100_000));
    web.page("x.test/wide", Web::head(&wide));
    web.page("x.test/hangs", Reply::Hang);
    web.page("x.test/stalls", Reply::Stall(tag("x.test/stalls").into_bytes(), 5));
    web.page("x.test/drips", Reply::Slow(tag("x.test/drips").repeat(50).into_bytes(), 1, Duration::from_millis(100)));
    web.page("x.test/broken", Reply::Truncate(tag("x.test/broken").repeat(50).into_bytes(), 400));
    web.page("x.test/closed", Reply::Close);
    for (path, wanted) in [
        ("x.test/long", Found),
        ("x.test/many", Found),
        ("x.test/late", Refused(404, "no go-import")),
        ("x.test/wide", Refused(404, "no go-import")),
        ("x.test/hangs", Refused(504, "")),
        ("x.test/stalls", Refused(504, "")),
        ("x.test/drips", Refused(504, "the page of x.test/drips took longer")),
        ("x.test/broken", Refused(502, "")),
        ("x.test/closed", Refused(502, "")),
        ("nowhere.test/a", Refused(502, "")),
    ] {
        let started = Instant::now();
        assert_eq!(wrong(&list(&gate, path), wanted), None, "{path}");
        assert!(started.elapsed() < Duration::from_secs(5), "{path}");
    }
}

#[test]
fn pages_are_not_asked_again_for_each_request() {
    let web = Web::new();
    let gate = web.gate("");
    web.page("x.test/a", Web::head(&tag("x.test/a git https://git.test/one")));
    web.page("x.test/a/sub/dir", Web::head(&tag("x.test/a git https://git.test/one")));
    for part in ["@v/list", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip", "@latest", "@v/main.info"] {
        assert_eq!(gate.get(&format!("/x.test/a/{part}")).status, 200, "{part}");
    }
    assert_eq!(gate.get("/x.test/a/sub/dir/@v/v1.0.1.info").status, 200);
    assert_eq!((web.asked("x.test/a"), web.asked("x.test/a/sub/dir")), (1, 1), "{:?}", web.pages.asked());
    // What is not there is not asked for again either, for a while.
    for part in ["@v/list", "@v/v1.0.0.info", "@latest"] {
        assert_eq!(gate.get(&format!("/x.test/none/{part}")).status, 404, "{part}");
    }
    assert_eq!(web.asked("x.test/none"), 1);
    // Those who ask at the same time share one question.
    web.page(
        "x.test/slow",
        Reply::After(Duration::from_millis(300), Box::new(Web::head(&tag("x.test/slow git https://git.test/one")))),
    );
    std::thread::scope(|scope| {
        for part in ["@v/list", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@latest"] {
            let gate = &gate;
            scope.spawn(move || assert_eq!(gate.get(&format!("/x.test/slow/{part}")).status, 200, "{part}"));
        }
    });
    assert_eq!(web.asked("x.test/slow"), 1);
}

#[test]
fn paths_that_end_in_git_are_reached_without_it_and_no_page_is_asked() {
    let web = Web::new();
    let gate = web.gate("");
    let answer = list(&gate, "git.test/one.git");
    assert_eq!(wrong(&answer, Found), None);
    let answer = list(&gate, "git.test/one.git/sub/dir");
    assert_eq!((answer.status, answer.text().as_str()), (200, "v1.0.1\n"));
    assert_eq!(web.pages.asked(), Vec::<String>::new());
    let answer = list(&gate, "git.test/none.git");
    assert_eq!(wrong(&answer, Refused(404, "no secure protocol found")), None);
    let answer = list(&gate, "nowhere.test/none.git");
    assert_eq!(wrong(&answer, Refused(502, "no secure protocol found")), None);
}

#[test]
fn without_discovery_no_page_is_asked() {
    let web = Web::new();
    let gate = web.gate("discover = false");
    web.page("x.test/a", Web::head(&tag("x.test/a git https://git.test/one")));
    assert_eq!(wrong(&list(&gate, "x.test/a"), Refused(404, "switched off")), None);
    assert_eq!((web.pages.asked(), web.proxy.asked()), (Vec::<String>::new(), Vec::<String>::new()));
}
