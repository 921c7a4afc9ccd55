//! The layers of the design hold: no file of `src` names a layer above its own.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, from the bottom. Modules of one layer do not know each other, save where `ALLOWED` says so.
const LAYERS: [&[&str]; 11] = [
    &["base"],
    &["module"],
    &["route"],
    &["store", "egress", "process"],
    &["vcs", "sumdb", "access"],
    &["upstream"],
    &["gateway"],
    &["server"],
    &["config"],
    &["assemble"],
    &["cli"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_file_names_a_layer_above_its_own() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 30);
    let mut wrong = Vec::new();
    for file in files {
        let inner = file.strip_prefix(&src).unwrap();
        let own = inner.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if own == "lib" || own == "main" {
            continue;
        }
        let own_layer = layer(&own).unwrap_or_else(|| panic!("{own} has no layer; name it in LAYERS"));
        let text = fs::read_to_string(&file).unwrap();
        // What a file's tests use is their business.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (at, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for named in line.split("crate::").skip(1).flat_map(first_names) {
                match layer(&named) {
                    Some(other) if other > own_layer || (other == own_layer && named != own) => {
                        wrong.push(format!("{}:{}: {own} names {named}", inner.display(), at + 1));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The modules that `crate::` names here: `a::b` names a, `{a, b::c}` names a and b.
fn first_names(rest: &str) -> Vec<String> {
    let word = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    match rest.strip_prefix('{') {
        None => vec![word(rest)],
        Some(group) => {
            let mut depth = 0;
            let top: String = group
                .chars()
                .map(|c| {
                    depth += match c {
                        '{' => 1,
                        '}' => -1,
                        _ => 0,
                    };
                    if depth > 0 { ' ' } else { c }
                })
                .collect();
            top.split(',').map(word).collect()
        }
    }
}
