//! nginx as an upstream that speaks https, with certificates of a company's own on both sides, and two servers behind one
//! address that only the name in the handshake tells apart.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use crate::helpers::{go_fails, go_ok};
use crate::nginx::Nginx;
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::modules::{Module, tree};
use crate::support::proxy::{FakeProxy, Manner};
use crate::support::tls::{Authority, Certified, Validity};

/// More than what nginx sends in one piece.
const BULK: usize = 3 << 20;

/// Writes a tree of files below a folder.
fn lay(root: &Path, tree: &BTreeMap<String, Vec<u8>>) {
    for (path, body) in tree {
        let file = root.join(&path[1..]);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, body).unwrap();
    }
}

fn lay_certified(dir: &Path, name: &str, certified: &Certified) {
    fs::write(dir.join(format!("{name}.pem")), &certified.pem).unwrap();
    fs::write(dir.join(format!("{name}.key")), &certified.key_pem).unwrap();
}

/// A `server` block that serves the tree in the folder of its name with the certificate of that name.
fn server(name: &str, server_name: &str, more: &str) -> String {
    format!(
        "server {{ listen {{address}} ssl; server_name {server_name}; root {{dir}}/{name}; default_type application/octet-stream;\n\
         ssl_certificate {{dir}}/{name}.pem; ssl_certificate_key {{dir}}/{name}.key; {more} }}\n"
    )
}

/// An nginx that wants to see a certificate of the staff, over one version of TLS.
fn strict(company: &Authority, staff: &Authority, version: &str, tree: &BTreeMap<String, Vec<u8>>) -> Nginx {
    let dir = TempDir::new().unwrap();
    lay(&dir.path().join("files"), tree);
    lay_certified(dir.path(), "files", &company.below("the servers").server(&["127.0.0.1"]));
    fs::write(dir.path().join("staff.pem"), staff.pem()).unwrap();
    let more = format!("ssl_protocols {version}; ssl_verify_client on; ssl_client_certificate {{dir}}/staff.pem;");
    Nginx::start(dir, &server("files", "_", &more))
}

/// The keys of an upstream that shows the certificate of this name.
fn showing(name: &str) -> String {
    format!("tls = {{ cert_file = \"{name}.pem\", key_file = \"{name}.key\" }}")
}

#[test]
fn the_go_command_gets_a_module_from_an_nginx_that_wants_a_client_certificate() {
    let (company, staff) = (Authority::new("the company"), Authority::new("the staff"));
    let [with, without, strange] = ["with", "without", "strange"].map(|name| Module::new(&format!("example.com/{name}"), "v1.0.0"));
    let with = with.bulk(BULK);
    let served = tree(&[with.clone(), without, strange]);
    for version in ["TLSv1.2", "TLSv1.3"] {
        let nginx = strict(&company, &staff, version, &served);
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("ca.pem"), company.pem()).unwrap();
        lay_certified(dir.path(), "client", &staff.client(Validity::Now));
        lay_certified(dir.path(), "stranger", &Authority::new("a stranger").client(Validity::Now));
        let url = format!("https://{}", nginx.address);
        let tables = upstream("with", &url, &showing("client"))
            + &upstream("without", &url, "")
            + &upstream("strange", &url, &showing("stranger"));
        let routes = ["with", "without", "strange"].map(|name| route(&format!("example.com/{name}"), &[name], "")).concat();
        let gate = Gate::start_in(dir, &format!("[egress.tls]\nca_file = \"ca.pem\"\n{tables}{routes}"));

        // A 404 would send the go command on to the next in the list, with the names of private modules.
        let go = Arc::new(Go::with_proxy(&format!("{},off", gate.url())));
        go.main_module("module example.com/main\n\ngo 1.21\n");
        go_ok(&go, &["mod", "download", "example.com/with@v1.0.0"]);
        let kept = fs::read(go.mod_cache().join("cache/download/example.com/with/@v/v1.0.0.zip")).unwrap();
        assert!(kept == with.zip(), "{version}: the zip differs");
        assert_eq!(go_ok(&go, &["list", "-m", "-versions", "example.com/with"]), "example.com/with v1.0.0\n");
        for name in ["without", "strange"] {
            let complaint = go_fails(&go, &["mod", "download", &format!("example.com/{name}@v1.0.0")]);
            assert!(complaint.contains("502 Bad Gateway"), "{version}, {name}: {complaint}");
            for part in ["/@v/list", "/@latest", "/@v/v1.0.0.info", "/@v/v1.0.0.mod", "/@v/v1.0.0.zip", "/@v/main.info"] {
                let answer = gate.get(&format!("/example.com/{name}{part}"));
                // nginx takes any certificate in the handshake and says what it thinks of it by a status.
                let wanted = format!("\n{name}: 400 Bad Request (");
                assert!(answer.status == 502 && answer.text().contains(&wanted), "{version}, {name}{part}: {}", answer.text());
            }
            assert!(!gate.cache(name).join(format!("example.com/{name}/@v/v1.0.0.mod")).exists());
        }
        assert!(nginx.asked().iter().all(|line| line.ends_with(" 200") == line.starts_with("/example.com/with/")));
    }
}

#[test]
fn two_servers_behind_one_address_are_told_apart_by_name() {
    let company = Authority::new("the company");
    let dir = TempDir::new().unwrap();
    for name in ["one", "two"] {
        // The same module, and each server has another file of it.
        let module = Module::new("example.com/m", "v1.0.0").file("which.txt", name);
        lay(&dir.path().join(name), &tree(&[module]));
        lay_certified(dir.path(), name, &company.server(&[&format!("{name}.corp.example")]));
    }
    let http = server("one", "one.corp.example", "") + &server("two", "two.corp.example", "");
    let nginx = Nginx::start(dir, &http);
    // The names have no addresses; the proxy knows where they are.
    let tunnel = FakeProxy::start(Manner::LeadsTo(nginx.address.clone()));
    let proxied = |more: &str| format!("proxy = \"http://{}\"\n{more}", tunnel.address);
    for name in ["one", "two"] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("ca.pem"), company.pem()).unwrap();
        let table = upstream("u", &format!("https://{name}.corp.example"), &proxied("tls = { ca_file = \"ca.pem\" }"));
        let gate = Gate::start_in(dir, &(table + &route("*", &["u"], "")));
        let go = Arc::new(Go::with_proxy(&gate.url()));
        go.main_module("module example.com/main\n\ngo 1.21\n");
        go_ok(&go, &["mod", "download", "example.com/m@v1.0.0"]);
        assert_eq!(fs::read_to_string(go.mod_cache().join("example.com/m@v1.0.0/which.txt")).unwrap(), name);
    }
    // A name that neither has is answered by the first, whose certificate is for another host.
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("ca.pem"), company.pem()).unwrap();
    let table = upstream("u", "https://three.corp.example", &proxied("tls = { ca_file = \"ca.pem\" }"));
    let gate = Gate::start_in(dir, &(table + &route("*", &["u"], "")));
    let answer = gate.get("/example.com/m/@v/v1.0.0.info");
    let wanted = "TLS with three.corp.example:443 failed: its certificate is for another host: for one.corp.example, \
                  not for three.corp.example";
    assert!(answer.status == 502 && answer.text().contains(wanted), "{}", answer.text());
}
