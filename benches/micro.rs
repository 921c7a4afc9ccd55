//! Micro-benchmarks of what every request passes and of the parsers: `cargo bench --bench micro [-- <filter>]`.
//!
//! They show whether a change made one step slower or faster; what a request costs as a whole is measured by `compare`.
//! The allocator is the program's own.

use std::fs::File;
use std::io::{Cursor, Write};
use std::sync::Arc;

use bytes::Bytes;
use divan::{Bencher, black_box, black_box_drop, counter::ItemsCount};
use modgate::gateway::list::merge;
use modgate::module::list::VersionList;
use modgate::module::{Ask, Info, ModulePath, ModuleVersion, Pattern, Version, zip as module_zip};
use modgate::route::{Fallback, ListMode, PartialRule, Route, RouteTable};
use modgate::store::Memory;
use modgate::store::memory::Weigh;
use zip::write::SimpleFileOptions;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// Takes what cannot be missing in a benchmark's own data.
fn sure<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("the benchmark's own data is good")
}

fn module(path: &str) -> ModulePath {
    sure(ModulePath::parse(path))
}

/// Versions in no order, a fifth of them pre-releases.
fn versions(count: usize, patch: usize) -> Vec<Version> {
    let scattered = (0..count).map(|n| n * 7919 % count);
    let text = scattered.map(|n| match n % 5 {
        0 => format!("v1.{}.{patch}-rc.{}", n / 10, n % 10),
        _ => format!("v1.{}.{}", n / 10, patch + n % 10),
    });
    text.map(|v| sure(Version::parse(&v))).collect()
}

/// The text of a list of as many versions, one a line.
fn list_text(count: usize, patch: usize) -> String {
    versions(count, patch).iter().map(Version::as_str).collect::<Vec<_>>().join("\n")
}

mod ask {
    use super::{Ask, black_box};

    const LIST: &str = "/example.com/team/tool/@v/list";
    const ZIP: &str = "/example.com/team/tool/@v/v1.24.3.zip";
    const PSEUDO: &str = "/example.com/team/tool/@v/v0.0.0-20191109021931-daa7c04131f5.mod";
    const ESCAPED: &str = "/example.com/%21big%21team/!tool/@v/v1.24.3.info";
    const DOTS: &str = "/example.com/../../etc/passwd/@v/list";
    const PERCENT: &str = "/example.com/%zz/tool/@v/list";

    #[divan::bench(args = [LIST, ZIP, PSEUDO, ESCAPED])]
    fn parse(path: &str) -> bool {
        black_box(Ask::parse(black_box(path))).is_ok()
    }

    #[divan::bench(args = [DOTS, PERCENT])]
    fn parse_malformed(path: &str) -> bool {
        black_box(Ask::parse(black_box(path))).is_err()
    }
}

mod route {
    use super::{Bencher, Fallback, ListMode, PartialRule, Pattern, Route, RouteTable, black_box, module, sure};

    fn route(id: usize, pattern: &str) -> Route {
        Route {
            id,
            key: format!("routes[{id}]").into(),
            public: true,
            patterns: sure(Pattern::parse_list(pattern)),
            steps: Vec::new(),
            fallback: Fallback::NotFound,
            list: ListMode::Merge,
            partial: PartialRule::Serve,
            hedge_after: None,
            verify: modgate::route::Verify::Off,
        }
    }

    /// Thirty routes of two patterns each, the last of which takes everything.
    fn table() -> RouteTable {
        let teams = (0..29).map(|n| route(n, &format!("git{n}.corp.example/team*,*.team{n}.example")));
        RouteTable::new(teams.chain([route(29, "*")]).collect())
    }

    fn plan(bencher: Bencher, path: &str, hit: usize) {
        let (table, path) = (table(), module(path));
        assert_eq!(table.plan(&path).map(|p| p.route.id), Ok(hit));
        bencher.bench_local(|| table.plan(black_box(&path)));
    }

    #[divan::bench]
    fn plan_30_routes_first_hits(bencher: Bencher) {
        plan(bencher, "git0.corp.example/team1/tool", 0);
    }

    #[divan::bench]
    fn plan_30_routes_last_hits(bencher: Bencher) {
        plan(bencher, "example.com/team/tool", 29);
    }

    #[divan::bench(args = ["example.com", "*.example.com/team", "exam*.com/t[a-f]am/*", "*"])]
    fn pattern_matches(bencher: Bencher, pattern: &str) {
        let pattern = sure(Pattern::parse(pattern));
        bencher.bench_local(|| pattern.matches(black_box("example.com/team/tool/v2")));
    }
}

mod memory {
    use super::{Arc, Bencher, Bytes, Memory, Weigh, black_box};

    struct Small(Bytes);

    impl Weigh for Small {
        fn bytes(&self) -> usize {
            self.0.len()
        }
    }

    fn filled() -> Memory<Small> {
        let memory = Memory::new(64 << 20);
        for n in 0..1000 {
            memory.put(&format!("/example.com/team/tool{n}/@v/v1.0.0.info"), Arc::new(Small(vec![b' '; 100].into())));
        }
        memory
    }

    fn get(bencher: Bencher, name: &str, there: bool) {
        let memory = filled();
        assert_eq!(memory.get(name).is_some(), there);
        bencher.bench_local(|| memory.get(black_box(name)).map(|small| small.0.len()));
    }

    #[divan::bench]
    fn get_of_1000_hit(bencher: Bencher) {
        get(bencher, "/example.com/team/tool500/@v/v1.0.0.info", true);
    }

    #[divan::bench]
    fn get_of_1000_miss(bencher: Bencher) {
        get(bencher, "/example.com/team/tool500/@v/v9.0.0.info", false);
    }
}

mod version {
    use super::{Bencher, ItemsCount, Version, black_box, sure, versions};

    #[divan::bench(args = ["v1.24.3", "v1.24.3-rc.1", "v2.0.0+incompatible", "v0.0.0-20191109021931-daa7c04131f5"])]
    fn parse(text: &str) -> bool {
        black_box(Version::parse(black_box(text))).is_ok()
    }

    #[divan::bench(args = ["v1.24.4", "v1.24.3-rc.1", "v10.0.0"])]
    fn compare_with_v1_24_3(bencher: Bencher, other: &str) {
        let (version, other) = (sure(Version::parse("v1.24.3")), sure(Version::parse(other)));
        bencher.bench_local(|| black_box(&version).cmp(black_box(&other)));
    }

    #[divan::bench]
    fn sort_500(bencher: Bencher) {
        let list = versions(500, 0);
        bencher.counter(ItemsCount::new(500_usize)).with_inputs(|| list.clone()).bench_local_refs(|list| list.sort_unstable());
    }
}

mod list {
    use super::{Bencher, ItemsCount, VersionList, black_box, list_text, merge, module};

    #[divan::bench]
    fn parse_200(bencher: Bencher) {
        let (path, text) = (module("example.com/team/tool"), list_text(200, 0));
        assert_eq!(VersionList::parse(&path, &text).tagged.len(), 200);
        bencher.counter(ItemsCount::new(200_usize)).bench_local(|| VersionList::parse(&path, black_box(&text)));
    }

    /// As for a route of three upstreams: two that overlap by half, and one of its own.
    #[divan::bench]
    fn parse_and_merge_3_of_200(bencher: Bencher) {
        let path = module("example.com/team/tool");
        let texts = [list_text(200, 0), list_text(200, 5), list_text(200, 100)];
        let merged = || merge(texts.iter().map(|text| VersionList::parse(&path, black_box(text))));
        assert!((400..600).contains(&merged().tagged.len()));
        bencher.counter(ItemsCount::new(600_usize)).bench_local(|| merged().render());
    }
}

mod info {
    use super::{Bencher, Bytes, Info};

    fn parse(bencher: Bencher, json: &'static str) {
        assert!(Info::parse(Bytes::from_static(json.as_bytes())).is_ok());
        bencher.bench_local(|| Info::parse(Bytes::from_static(json.as_bytes())));
    }

    #[divan::bench]
    fn parse_plain(bencher: Bencher) {
        parse(bencher, r#"{"Version":"v1.24.3","Time":"2024-02-03T04:05:06Z"}"#);
    }

    #[divan::bench]
    fn parse_with_origin(bencher: Bencher) {
        parse(
            bencher,
            r#"{"Version":"v1.24.3","Time":"2024-02-03T04:05:06Z","Origin":{"VCS":"git","URL":"https://git.corp.example/team/tool","Ref":"refs/tags/v1.24.3","Hash":"2f3c1e0b6a9d4c8e7f5a1b2c3d4e5f60718293a4"}}"#,
        );
    }
}

mod zips {
    use super::{
        Bencher, Cursor, File, ModuleVersion, SimpleFileOptions, Version, Write, black_box_drop, module, module_zip, sure,
    };

    /// A module zip of so many small files, in a file without a name.
    fn zip_of(version: &ModuleVersion, files: usize) -> File {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for n in 0..files {
            sure(zip.start_file(format!("{version}/internal/part{}/file{n}.go", n % 20), SimpleFileOptions::default()));
            sure(writeln!(zip, "package part{}\n\nconst File = {n}", n % 20));
        }
        let mut file = sure(tempfile::tempfile());
        sure(file.write_all(sure(zip.finish()).get_ref()));
        file
    }

    #[divan::bench]
    fn check_300_entries(bencher: Bencher) {
        let version = sure(ModuleVersion::new(module("example.com/team/tool"), sure(Version::parse("v1.24.3"))));
        let file = zip_of(&version, 300);
        assert!(module_zip::check(sure(file.try_clone()), &version).is_ok());
        bencher
            .with_inputs(|| sure(file.try_clone()))
            .bench_local_values(|file| black_box_drop(module_zip::check(file, &version).is_ok()));
    }
}
