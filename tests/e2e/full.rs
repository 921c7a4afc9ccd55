//! A disk that is really full: a file system in memory, of a few megabytes, under modgate's cache.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::daemons::as_root;
use crate::helpers::Chance;
use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::git::Change::File;
use crate::support::git::{GitServer, Script};
use crate::support::modules::Module;
use crate::support::upstream::Upstream;

const MEGABYTE: usize = 1 << 20;

/// A disk of so many megabytes, gone when it goes out of scope.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn under(folder: &Path, megabytes: usize) -> Self {
        fs::create_dir_all(folder).unwrap();
        let options = format!("size={megabytes}m,mode=777");
        let mounted = as_root("mount").args(["-t", "tmpfs", "-o", &options, "modgate-test"]).arg(folder).output().unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        Self(folder.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever has a file on it open keeps it until then.
        let _ = as_root("umount").arg("-l").arg(&self.0).output();
    }
}

/// Text that can be made half as long, and no shorter.
fn noise(length: usize) -> String {
    let mut chance = Chance(7);
    (0..length).map(|_| char::from(chance.of(b"0123456789abcdef"))).collect()
}

#[test]
fn more_than_the_disk_holds_goes_through_it() {
    let dir = tempfile::tempdir().unwrap();
    let _disk = SmallDisk::under(&dir.path().join("cache"), 8);
    let modules: Vec<Module> = (0..8).map(|n| Module::new("example.com/m", &format!("v1.0.{n}")).bulk(2 * MEGABYTE)).collect();
    let up = Upstream::serving(&modules);
    let text = format!("[cache]\nmin_free = \"1MiB\"\n\n{}{}", upstream("up", &up.url(), ""), route("*", &["up"], ""));
    let gate = Gate::start_in(dir, &text);
    for module in &modules {
        // One that finds no room is refused, and room is made.
        eventually("there is room for the next one", || {
            let answer = gate.get(&module.url("zip"));
            assert!(answer.status == 503 || (answer.status == 200 && answer.body == module.zip()), "{}", answer.text());
            answer.status == 200
        });
    }
    assert!(gate.log().contains("the disk had less than cache.min_free left"), "{}", gate.log());
}

#[test]
fn a_repository_is_not_blamed_for_a_full_disk() {
    let root = TempDir::new().unwrap();
    let tag = |name: &str, text: &str| {
        let go_mod = format!("module git.example/{name}\n");
        Script::new().commit("main", &[("go.mod", File(&go_mod)), ("text", File(text))]).tag("main", &["v1.0.0"])
    };
    tag("large", &noise(24 * MEGABYTE)).build(&root.path().join("large"));
    tag("small", "a few words").build(&root.path().join("small"));
    let server = GitServer::start(root.path());
    let dir = tempfile::tempdir().unwrap();
    let _disk = SmallDisk::under(&dir.path().join("cache"), 8);
    let rule = format!("repositories = [{{ match = \"git.example/{{name}}\", repo = \"{}/{{name}}.git\" }}]", server.url());
    let git = format!("[upstreams.git]\ntype = \"vcs\"\nprivate = true\nretries = 0\n{rule}\n");
    let other = Upstream::serving(&[]);
    let text = git + &upstream("other", &other.url(), "private = true") + &route("*", &["git", "other"], "");
    let gate = Gate::start_in(dir, &format!("[cache]\nmin_free = \"1MiB\"\n\n{text}"));
    for part in ["info", "zip"] {
        let answer = gate.get(&format!("/git.example/large/@v/v1.0.0.{part}"));
        let text = answer.text();
        assert_eq!(answer.status, 503, "{text}");
        assert!(text.contains("modgate cannot store it on its way: ") && text.contains("No space left on device"), "{text}");
        assert!(!text.contains(gate.dir.path().to_str().unwrap()), "no folder of the server's in {text}");
    }
    assert_eq!(gate.get("/git.example/small/@v/v1.0.0.zip").status, 200, "what git left of the large one is gone");
}
