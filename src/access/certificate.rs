//! Client certificates: whom one names, and which teams its holder is of. That it is of a trusted authority is TLS' business.

use std::sync::Arc;
use std::time::SystemTime;

use wildmatch::WildMatch;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

use super::{Caller, How};

/// The most names of a certificate that are looked at.
const MAX_NAMES: usize = 100;
/// The longest name that is.
const MAX_NAME: usize = 1000;

/// What of a certificate a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The subject's common name.
    CommonName,
    /// The subject's organization.
    Organization,
    /// The subject's organizational unit.
    Unit,
    /// A DNS name that it is for.
    Dns,
    /// A URI that it is for, as SPIFFE has it.
    Uri,
    /// A mail address that it is for.
    Email,
}

const FIELDS: [(&str, Field); 6] = [
    ("CN", Field::CommonName),
    ("O", Field::Organization),
    ("OU", Field::Unit),
    ("DNS", Field::Dns),
    ("URI", Field::Uri),
    ("EMAIL", Field::Email),
];

/// Whom a field of a certificate makes its holder.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    field: Field,
    value: WildMatch,
    /// The team that they are of, by place.
    pub team: usize,
}

impl Rule {
    /// Reads a rule such as `OU=payments` or `URI=spiffe://corp.example/payments/*`: `*` is any run of characters, `?` is one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, team: usize) -> Result<Self, String> {
        let named = text.split_once('=').and_then(|(name, value)| {
            let (_, field) = FIELDS.iter().find(|(known, _)| *known == name.trim())?;
            Some((*field, value.trim())).filter(|(_, value)| !value.is_empty())
        });
        let Some((field, value)) = named else {
            return Err("has to be CN=, O=, OU=, DNS=, URI= or EMAIL= and what that has to be, as \"OU=payments\"".into());
        };
        Ok(Self { field, value: WildMatch::new(value), team })
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    names: Vec<(Field, String)>,
    expires: Option<SystemTime>,
}

impl Subject {
    /// Reads a certificate in DER. One that cannot be read names nobody.
    pub fn read(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self { names: Vec::new(), expires: None } };
        let subject = certificate.subject();
        let texts = |field: Field, values: Vec<&AttributeTypeAndValue<'_>>| {
            values.into_iter().filter_map(move |v| Some((field, v.as_str().ok()?.to_owned()))).collect::<Vec<_>>()
        };
        let mut names = texts(Field::CommonName, subject.iter_common_name().collect());
        names.extend(texts(Field::Organization, subject.iter_organization().collect()));
        names.extend(texts(Field::Unit, subject.iter_organizational_unit().collect()));
        if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
            names.extend(alternatives.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((Field::Dns, (*name).to_owned())),
                GeneralName::URI(name) => Some((Field::Uri, (*name).to_owned())),
                GeneralName::RFC822Name(name) => Some((Field::Email, (*name).to_owned())),
                _ => None,
            }));
        }
        names.retain(|(_, name)| name.len() <= MAX_NAME && !name.contains(char::is_control));
        names.truncate(MAX_NAMES);
        let end = u64::try_from(certificate.validity().not_after.timestamp()).ok();
        let expires = end.and_then(|s| SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(s)));
        Self { names, expires }
    }

    /// The holder, by the rules that hold.
    pub fn caller(&self, rules: &[Rule]) -> Caller {
        let mut teams = Vec::new();
        for rule in rules {
            let names = |(field, name): &(Field, String)| *field == rule.field && rule.value.matches(name);
            if self.names.iter().any(names) && !teams.contains(&rule.team) {
                teams.push(rule.team);
            }
        }
        let by = [Field::CommonName, Field::Uri, Field::Dns, Field::Email];
        let name = by.iter().find_map(|by| self.names.iter().find(|(field, _)| field == by)).map(|(_, name)| name.as_str());
        Caller { name: Arc::from(name.unwrap_or("(no name)")), how: How::Certificate, teams, expires: self.expires }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules() {
        for bad in ["", "payments", "CN=", "XX=a", "cn=a"] {
            assert!(Rule::parse(bad, 1).is_err(), "{bad}");
        }
        let mut params = rcgen::CertificateParams::new(vec!["ci.pay.example".to_owned()]).expect("params");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "build-7");
        params.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "payments");
        params.subject_alt_names.push(rcgen::SanType::URI("spiffe://corp.example/pay/ci".try_into().expect("URI")));
        let key = rcgen::KeyPair::generate().expect("key");
        let subject = Subject::read(params.self_signed(&key).expect("certificate").der());
        let table = [
            ("CN=build-*", true),
            ("CN=build-?", true),
            ("CN=payments", false),
            ("OU=payments", true),
            ("DNS=ci.pay.example", true),
            ("DNS=*.pay.example", true),
            ("URI=spiffe://corp.example/pay/*", true),
            ("URI=spiffe://corp.example/maps/*", false),
            ("O=*", false),
        ];
        for (text, wanted) in table {
            let caller = subject.caller(&[Rule::parse(text, 3).expect("rule")]);
            assert_eq!(caller.teams == [3], wanted, "{text}");
            assert_eq!(&*caller.name, "build-7");
        }
        let both = [Rule::parse("CN=*", 1), Rule::parse("OU=*", 2), Rule::parse("DNS=*", 1)].map(|r| r.expect("rule"));
        assert_eq!(subject.caller(&both).teams, [1, 2]);
        assert!(subject.expires.is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_name_somebody_or_nobody(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Subject::read(&bytes).caller(&[]).teams.is_empty());
        }
    }
}
