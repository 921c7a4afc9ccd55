package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Ring has the keys of an issuer, and one that is nobody's.
type ring struct {
	rs, free, ps, p256, p384, ed, small, enc, oct, stranger signer
	url                                                     string
}

func newRing(word, url string) ring {
	return ring{
		rs:       signer{word + "-rs256", jose.RS256, rsaKey(2048)},
		free:     signer{word + "-rsa", jose.RS256, rsaKey(2048)},
		ps:       signer{word + "-ps256", jose.PS256, rsaKey(2048)},
		p256:     signer{word + "-p256", jose.ES256, ecKey(elliptic.P256())},
		p384:     signer{word + "-p384", jose.ES384, ecKey(elliptic.P384())},
		ed:       signer{word + "-ed25519", jose.EdDSA, edKey()},
		small:    signer{word + "-small", jose.RS256, rsaKey(1024)},
		enc:      signer{word + "-enc", jose.ES256, ecKey(elliptic.P256())},
		oct:      signer{word + "-oct", jose.HS256, random(32)},
		stranger: signer{"stranger", jose.ES256, ecKey(elliptic.P256())},
		url:      url,
	}
}

func (r ring) set() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		r.small.public(string(jose.RS256), "sig"), r.enc.public("", "enc"), r.oct.public("", ""),
		r.rs.public(string(jose.RS256), "sig"), r.free.public("", ""), r.ps.public(string(jose.PS256), "sig"),
		r.p256.public(string(jose.ES256), "sig"), r.p384.public("", "sig"), r.ed.public("", ""),
	}}
}

func (r ring) rows() []row {
	return slices.Concat(r.good(), r.entitled(), r.wrongClaims(), r.wrongKeys(), r.wrongForms())
}

func after(d time.Duration) int64 { return made.Add(d).Unix() }

// By, with, headed and raw sign the claims of a good token with a key, with changes, with headers, and other bytes than claims.
func by(name, want string, s signer) row { return row{name, want, s.token(nil, nil)} }

func (r ring) with(name, want string, change object) row {
	return row{name, want, r.p256.token(change, nil)}
}

func (r ring) headed(name, want string, headers object) row {
	return row{name, want, r.p256.token(nil, headers)}
}

func (r ring) raw(name, payload string) row { return row{name, out, r.p256.sign([]byte(payload), nil)} }

func (r ring) good() []row {
	return []row{
		// These have an end or a beginning near by.
		r.with("exp a moment ago, by a clock that is a little slow", in, object{"exp": after(-5 * time.Second)}),
		r.with("nbf in a moment, by a clock that is a little fast", in, object{"nbf": after(20 * time.Second)}),
		by("RS256", in, r.rs),
		by("RS256 by a key without alg", in, r.free),
		by("RS384", in, r.free.by(jose.RS384)),
		by("RS512", in, r.free.by(jose.RS512)),
		by("PS256", in, r.ps),
		by("PS256 by a key without alg", in, r.free.by(jose.PS256)),
		by("PS384", in, r.free.by(jose.PS384)),
		by("PS512", in, r.free.by(jose.PS512)),
		by("ES256", in, r.p256),
		by("ES384", in, r.p384),
		by("EdDSA", in, r.ed),
		{"no kid, RS256", in, r.rs.token(nil, object{"kid": nil})},
		{"no kid, EdDSA", in, r.ed.token(nil, object{"kid": nil})},
		r.with("audience as a list", in, object{"aud": []string{"other", audience}}),
		r.with("audience as a list of one", in, object{"aud": []string{audience}}),
		r.with("exp with a fraction", in, object{"exp": float64(after(time.Hour)) + 0.25}),
		r.with("exp far away", in, object{"exp": 253402300799}),
		r.with("nbf in the past", in, object{"nbf": after(-time.Hour)}),
		r.with("no sub", in, object{"sub": nil}),
		r.with("large", in, object{"groups": strings.Repeat("group/", 1000)}),
		r.with("not ASCII", in, object{"sub": "größe/プロジェクト"}),
		r.headed("another typ", in, object{"typ": "at+jwt"}),
		r.headed("unknown header", in, object{"x": object{"y": []int{1}}}),
		// What it says of its key is passed over, not believed.
		r.headed("jku", in, object{"jku": r.url}),
		r.headed("jwk of its own key", in, object{"jwk": r.p256.public("", "")}),
	}
}

// Entitled are good tokens of those who are of the team payments, and of those who are not.
func (r ring) entitled() []row {
	project := func(name, want string, project any) row { return r.with(name, want, object{"project_path": project}) }
	return []row{
		project("project in a list", in, []string{"maps/api", "payments/api"}),
		project("longer project", in, "payments/a/b/c"),
		project("other project", nobody, "maps/api"),
		project("no project", nobody, nil),
		project("project's group", nobody, "payments"),
		project("project that ends so", nobody, "x/payments/api"),
		project("project in other case", nobody, "Payments/api"),
		project("project as an object", nobody, object{"payments/api": "payments/api"}),
		project("other projects in a list", nobody, []string{"maps/api"}),
		project("project in a list of lists", nobody, [][]string{{"payments/api"}}),
	}
}

func (r ring) wrongClaims() []row {
	null := strings.Replace(string(must(json.Marshal(claims(object{"exp": "?"})))), `"?"`, "null", 1)
	return []row{
		r.with("expired", out, object{"exp": after(-time.Hour)}),
		r.with("expired beyond any clock", out, object{"exp": after(-35 * time.Second)}),
		r.with("exp of 1970", out, object{"exp": 0}),
		r.with("exp negative", out, object{"exp": -1}),
		r.with("exp as text", out, object{"exp": "253402300799"}),
		r.with("exp as a list", out, object{"exp": []int64{after(time.Hour)}}),
		r.with("exp true", out, object{"exp": true}),
		r.with("no exp", out, object{"exp": nil}),
		r.raw("exp null", null),
		r.with("nbf in the future", out, object{"nbf": after(time.Hour)}),
		r.with("nbf as text", out, object{"nbf": "1"}),
		r.with("other issuer", out, object{"iss": "https://evil.example"}),
		r.with("issuer with a slash more", out, object{"iss": issuer + "/"}),
		r.with("issuer in other case", out, object{"iss": "https://CI.example"}),
		r.with("issuer as a list", out, object{"iss": []string{issuer}}),
		r.with("no issuer", out, object{"iss": nil}),
		r.with("other audience", out, object{"aud": "other"}),
		r.with("other audiences", out, object{"aud": []string{"other", "another"}}),
		r.with("audience that begins so", out, object{"aud": audience + "-2"}),
		r.with("no audience in a list", out, object{"aud": []string{}}),
		r.with("no audience", out, object{"aud": nil}),
		r.with("audience as an object", out, object{"aud": object{audience: audience}}),
		r.with("audience as a number", out, object{"aud": 7}),
		r.raw("claims that are a list", "[1]"),
		r.raw("claims that are a text", `"x"`),
		r.raw("claims that are no JSON", "{iss"),
		r.raw("no claims", ""),
	}
}

func (r ring) wrongKeys() []row {
	secret := func(name string, s signer, secret []byte) row {
		return by(name, out, signer{s.name, jose.HS256, secret})
	}
	rsaPublic, ecPublic := r.rs.key.(*rsa.PrivateKey).Public(), r.p256.key.(*ecdsa.PrivateKey).Public()
	der, ecDER := must(x509.MarshalPKIXPublicKey(rsaPublic)), must(x509.MarshalPKIXPublicKey(ecPublic))
	point := ecDER[len(ecDER)-65:]
	theirs := r.stranger.public("", "")
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: made.Add(time.Hour)}
	private := r.stranger.key.(*ecdsa.PrivateKey)
	certificate := must(x509.CreateCertificate(rand.Reader, template, template, private.Public(), private))
	chain := []string{base64.StdEncoding.EncodeToString(certificate)}
	return []row{
		by("unknown key", out, r.stranger),
		by("unknown key by a known name", out, r.stranger.as(r.p256.name)),
		{"unknown key without a name", out, r.stranger.token(nil, object{"kid": nil})},
		by("known key by an unknown name", out, r.p256.as("nobody")),
		by("known key by no name", out, r.p256.as("")),
		by("kid of another key", out, r.free.as(r.rs.name)),
		by("kid of another kind", out, r.p256.as(r.ed.name)),
		by("kid in other case", out, r.p256.as(strings.ToUpper(r.p256.name))),
		by("kid of ten thousand letters", out, r.stranger.as(strings.Repeat("k", 10000))),
		r.headed("kid as a number", out, object{"kid": 7}),
		secret("HS256 by the public key in DER", r.rs, der),
		secret("HS256 by the public key in PEM", r.rs, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		secret("HS256 by the public key as a JWK", r.rs, must(json.Marshal(r.rs.public(string(jose.RS256), "sig")))),
		secret("HS256 by the modulus", r.rs, r.rs.key.(*rsa.PrivateKey).N.Bytes()),
		secret("HS256 by the point", r.p256, point),
		secret("HS256 by the point's coordinate", r.p256, point[1:33]),
		by("HS256 by a key of the set", out, r.oct),
		by("RSA of 1024 bits", out, r.small),
		by("key for encryption", out, r.enc),
		by("RS256 by a PS256", out, r.ps.by(jose.RS256)),
		by("PS256 by an RS256", out, r.rs.by(jose.PS256)),
		{"jwk of a stranger", out, r.stranger.token(nil, object{"kid": nil, "jwk": theirs})},
		{"jwk of a stranger by a known name", out, r.stranger.as(r.p256.name).token(nil, object{"jwk": theirs})},
		{"jku of a stranger", out, r.stranger.token(nil, object{"jku": r.url})},
		{"x5u of a stranger", out, r.stranger.token(nil, object{"x5u": r.url})},
		{"x5c of a stranger", out, r.stranger.token(nil, object{"kid": nil, "x5c": chain})},
	}
}

// WrongForms are what go-jose would not put together.
func (r ring) wrongForms() []row {
	encode := base64.RawURLEncoding.EncodeToString
	marshal := func(value any) string { return encode(must(json.Marshal(value))) }
	rs256 := func(message []byte) []byte {
		digest := sha256.Sum256(message)
		return must(rsa.SignPKCS1v15(rand.Reader, r.rs.key.(*rsa.PrivateKey), crypto.SHA256, digest[:]))
	}
	asn1 := func(message []byte) []byte {
		digest := sha256.Sum256(message)
		return must(ecdsa.SignASN1(rand.Reader, r.p256.key.(*ecdsa.PrivateKey), digest[:]))
	}
	noughts := func(length int) func([]byte) []byte { return func([]byte) []byte { return make([]byte, length) } }
	// An empty text is left out.
	forged := func(name, alg, kid string, sign func(message []byte) []byte) row {
		header := object{"alg": alg, "kid": kid}
		maps.DeleteFunc(header, func(_ string, value any) bool { return value == "" })
		message := marshal(header) + "." + marshal(claims(nil))
		return row{name, out, message + "." + encode(sign([]byte(message)))}
	}
	good, other := strings.Split(r.ed.token(nil, nil), "."), strings.Split(r.ed.token(nil, nil), ".")
	join := func(name string, parts ...string) row { return row{name, out, strings.Join(parts, ".")} }
	signature := must(base64.RawURLEncoding.DecodeString(good[2]))
	tampered := append([]byte{signature[0] ^ 1}, signature[1:]...)
	// The last letter of 64 bytes in base64 has four bits that say nothing, and are nought.
	end := len(good[2]) - 1
	inexact := good[2][:end] + map[string]string{"A": "B", "Q": "R", "g": "h", "w": "x"}[good[2][end:]]
	recipient := jose.Recipient{Algorithm: jose.RSA_OAEP, Key: r.rs.public("", "").Key}
	encrypter := must(jose.NewEncrypter(jose.A128GCM, recipient, nil))
	encrypted := must(must(encrypter.Encrypt(must(json.Marshal(claims(nil))))).CompactSerialize())
	options := (&jose.SignerOptions{}).WithHeader("kid", r.ed.name)
	maker := must(jose.NewSigner(jose.SigningKey{Algorithm: r.ed.alg, Key: r.ed.key}, options))
	deep := json.RawMessage(strings.Repeat("[", 4000) + strings.Repeat("]", 4000))
	return []row{
		forged("alg none", "none", "", noughts(0)),
		forged("alg none with a name", "none", r.ed.name, noughts(0)),
		forged("alg none with a signature", "none", r.p256.name, asn1),
		forged("alg None", "None", r.ed.name, noughts(0)),
		forged("alg rs256", "rs256", r.rs.name, rs256),
		forged("no alg", "", r.rs.name, rs256),
		forged("alg that writes to the log", "a\n\x1b[31mforged\r", r.rs.name, rs256),
		forged("alg ES256 of an RS256", "ES256", r.rs.name, rs256),
		forged("alg ES256 of an RS256 by another name", "ES256", r.p256.name, rs256),
		forged("alg RS512 of an RS256", "RS512", r.rs.name, rs256),
		forged("alg PS256 of an RS256", "PS256", r.rs.name, rs256),
		forged("alg RS256 of an ES256", "RS256", r.p256.name, asn1),
		forged("ES256 in ASN.1", "ES256", r.p256.name, asn1),
		forged("ES256 of noughts", "ES256", r.p256.name, noughts(64)),
		forged("RS256 of noughts", "RS256", r.rs.name, noughts(256)),
		forged("EdDSA of noughts", "EdDSA", r.ed.name, noughts(64)),
		r.headed("b64 false", out, object{"b64": false, "crit": []string{"b64"}}),
		r.headed("crit of something unknown", out, object{"crit": []string{"x"}, "x": 1}),
		r.headed("crit of exp", out, object{"crit": []string{"exp"}, "exp": after(time.Hour)}),
		join("tampered claims", good[0], marshal(claims(object{"sub": "root"})), good[2]),
		join("tampered header", marshal(object{"alg": "EdDSA", "kid": r.ed.name, "x": 1}), good[1], good[2]),
		join("deep header", marshal(object{"alg": "EdDSA", "kid": r.ed.name, "x": deep}), good[1], good[2]),
		join("deep claims", good[0], marshal(claims(object{"x": deep})), good[2]),
		join("tampered signature", good[0], good[1], encode(tampered)),
		join("signature of another token", good[0], good[1], other[2]),
		join("signature too short", good[0], good[1], encode(signature[:63])),
		join("signature too long", good[0], good[1], encode(append(signature, 0))),
		join("signature twice", good[0], good[1], good[2], good[2]),
		join("signature not exact", good[0], good[1], inexact),
		join("signature with padding", good[0], good[1], good[2]+"=="),
		join("empty signature", good[0], good[1], ""),
		join("no signature", good[0], good[1]),
		join("empty claims", good[0], "", good[2]),
		join("empty header", "", good[1], good[2]),
		{"encrypted", out, encrypted},
		{"signed in JSON", out, must(maker.Sign(must(json.Marshal(claims(nil))))).FullSerialize()},
	}
}
