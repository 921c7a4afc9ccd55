//! Who modgate is to an upstream: headers that go to one origin and to nobody else.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use url::{Origin, Url};

use crate::base::Secret;

/// Headers by origin. A redirect that leaves an origin leaves them behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    own: Vec<(Origin, Vec<(String, Secret)>)>,
    /// A netrc file's text, for https servers beside those.
    netrc: Option<Secret>,
}

impl Credentials {
    /// Headers for the origin of this URL. Their names and values have been checked.
    pub fn new(url: &Url, headers: Vec<(String, Secret)>) -> Self {
        Self { own: vec![(url.origin(), headers)], netrc: None }
    }

    /// Headers for many servers: for the origins of these URLs, and for those https servers that a netrc file's text names.
    pub fn of_many(own: impl IntoIterator<Item = (Url, Vec<(String, Secret)>)>, netrc: Option<Secret>) -> Self {
        Self { own: own.into_iter().map(|(url, headers)| (url.origin(), headers)).collect(), netrc }
    }

    /// The headers for a URL.
    pub(super) fn of(&self, url: &Url) -> Vec<(String, Secret)> {
        let origin = url.origin();
        if let Some((_, headers)) = self.own.iter().find(|(own, _)| *own == origin) {
            return headers.clone();
        }
        let netrc = self.netrc.as_ref().filter(|_| url.scheme() == "https");
        let login = netrc.and_then(|text| netrc_login(text.expose(), url));
        login.map(|(user, password)| vec![("authorization".to_owned(), basic(&user, password.expose()))]).unwrap_or_default()
    }
}

/// The value of a header for HTTP's Basic scheme (RFC 7617).
pub fn basic(user: &str, password: &str) -> Secret {
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
}

/// The login and password that a netrc file has for a server, by the go command's rules: `machine`, `login` and `password` alone
/// count, `default` does not, macros are passed over, and the first of several entries wins. As there, an entry's machine is a
/// name with the port where the URL has one, or with the beginning of a path, with `https://` before it or without.
pub fn netrc_login(text: &str, url: &Url) -> Option<(String, Secret)> {
    let mut prefix = url.as_str().split_once("://")?.1.trim_end_matches('/');
    let entries = netrc_entries(text);
    loop {
        if let Some((_, login, password)) = entries.iter().find(|(machine, ..)| place(machine) == prefix) {
            return Some((login.clone(), Secret::new(password.as_str())));
        }
        prefix = prefix.rsplit_once('/')?.0;
    }
}

/// What an entry's machine is compared by.
fn place(machine: &str) -> &str {
    let place = machine.strip_prefix("https://").unwrap_or(machine);
    place.strip_suffix('/').unwrap_or(place)
}

fn netrc_entries(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let (mut machine, mut login, mut password) = (String::new(), String::new(), String::new());
    let mut in_macro = false;
    for line in text.split('\n') {
        if in_macro {
            in_macro = !line.is_empty();
            continue;
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let mut pairs = fields.chunks_exact(2);
        for pair in &mut pairs {
            match pair[0] {
                "machine" => (machine, login, password) = (pair[1].to_owned(), String::new(), String::new()),
                "login" => pair[1].clone_into(&mut login),
                "password" => pair[1].clone_into(&mut password),
                "macdef" => in_macro = true,
                _ => {}
            }
            if !machine.is_empty() && !login.is_empty() && !password.is_empty() {
                found.push((std::mem::take(&mut machine), std::mem::take(&mut login), std::mem::take(&mut password)));
            }
        }
        if pairs.remainder() == ["default"] {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netrc_is_read_as_go_reads_it() {
        // The cases of cmd/go/internal/auth, and the look-up by URL.
        let text = "# a comment\nmachine incomplete\npassword none\n\nmachine api.example.com\n  login user\n  password pwd\n\n\
                    machine incomlete.example.com\n  login justlogin\n\nmachine test.example.com login user2 password pwd2\n\n\
                    machine oneline login user3 password pwd3\n\nmachine ignore.me macdef ignore\n  machine nope login nope password nope\n\n\
                    machine hasmacro.example.com\n  login oldlogin\n  password oldpassword\n  login ignored\n\n\
                    machine h.example:8443/base login p password q\ndefault\nmachine after login a password b\n";
        let of = |url: &str| netrc_login(text, &Url::parse(url).expect("url")).map(|(l, p)| format!("{l}:{}", p.expose()));
        assert_eq!(of("https://api.example.com/x/@v/list").as_deref(), Some("user:pwd"));
        assert_eq!(of("https://test.example.com").as_deref(), Some("user2:pwd2"));
        assert_eq!(of("https://oneline/"), Some("user3:pwd3".into()));
        assert_eq!(of("https://hasmacro.example.com/"), Some("oldlogin:oldpassword".into()));
        assert_eq!(of("https://h.example:8443/base/m"), Some("p:q".into()));
        for nobody in
            ["https://nope/", "https://after/", "https://h.example:8443/", "https://api.example.com:444/", "https://incomplete/"]
        {
            assert_eq!(of(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn basic_is_what_rfc_7617_says() {
        assert_eq!(basic("Aladdin", "open sesame").expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn credentials_stay_with_their_origin() {
        let url = |text: &str| Url::parse(text).expect("url");
        let own = Credentials::new(&url("https://h.example/base"), vec![("x-token".into(), Secret::new("t"))]);
        assert_eq!(own.of(&url("https://h.example:443/else")).len(), 1);
        for other in ["http://h.example/base", "https://h.example:444/", "https://x.h.example/"] {
            assert_eq!(own.of(&url(other)).len(), 0, "{other}");
        }
    }
}
