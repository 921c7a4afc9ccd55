// Xjose makes keys and signed tokens with go-jose, so that a test can hold modgate's verdict on each against another library's.
//
// As "xjose <word> <url>" it prints a JSON object: a set of keys whose names begin with the word, and tokens, each with the
// verdict that RFC 7515, 7517, 7518 and 7519 and modgate's own words on its settings ask for. Some tokens name the URL as the
// place of their keys. Go-jose judges them all by the same set; where its verdict is another, "apart" says why, and any other
// difference ends the program.
package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	issuer   = "https://ci.example"
	audience = "modgate"
	// How far modgate lets clocks differ.
	leeway = 30 * time.Second
)

// The verdicts: let in, refused, or good and of no team.
const (
	in     = "in"
	out    = "out"
	nobody = "nobody"
)

type object = map[string]any

type row struct {
	Name  string `json:"name"`
	Want  string `json:"want"`
	Token string `json:"token"`
}

type ending struct {
	Exp   int64  `json:"exp"`
	Token string `json:"token"`
}

// Printed is what a test reads.
type printed struct {
	Issuer   string             `json:"iss"`
	Audience string             `json:"aud"`
	Keys     jose.JSONWebKeySet `json:"keys"`
	// The RSA key of 1024 bits alone.
	Small  jose.JSONWebKeySet `json:"small"`
	Tokens []row              `json:"tokens"`
	// Good ones, no two the same, by a key of the set.
	Spare []string `json:"spare"`
	// Good ones that do not name their key.
	Nameless []string `json:"nameless"`
	// Ones by a key of nobody, each of which names another key.
	Strangers []string `json:"strangers"`
	// Good ones that end soon, or have ended a moment ago.
	Endings []ending `json:"endings"`
}

// One who signs: a name, an algorithm and a private key.
type signer struct {
	name string
	alg  jose.SignatureAlgorithm
	key  any
}

var (
	made = time.Now()
	algs = []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.EdDSA,
	}
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatalf("xjose: %v", err)
	}
	return value
}

func rsaKey(bits int) *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, bits)) }

func ecKey(curve elliptic.Curve) *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(curve, rand.Reader))
}

func edKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return must(key, err)
}

// Claims are those of a good token, changed: nil takes one away.
func claims(change object) object {
	all := object{
		"iss": issuer, "aud": audience, "sub": "project_path:payments/api:ref:main", "project_path": "payments/api",
		"iat": made.Unix(), "exp": made.Add(time.Hour).Unix(), "jti": base64.RawURLEncoding.EncodeToString(random(9)),
	}
	maps.Copy(all, change)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	return all
}

func random(length int) []byte {
	bytes := make([]byte, length)
	must(rand.Read(bytes))
	return bytes
}

// Sign is go-jose's, of any payload and with further headers; "kid" of nil leaves the key's name out.
func (s signer) sign(payload []byte, headers object) string {
	options := &jose.SignerOptions{}
	options.WithType("JWT").WithHeader("kid", s.name)
	for name, value := range headers {
		options.WithHeader(jose.HeaderKey(name), value)
	}
	if headers["kid"] == nil && has(headers, "kid") {
		delete(options.ExtraHeaders, "kid")
	}
	maker := must(jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: s.key}, options))
	return must(must(maker.Sign(payload)).CompactSerialize())
}

func has(headers object, name string) bool {
	_, there := headers[name]
	return there
}

// Token signs the claims of a good token with these changes.
func (s signer) token(change, headers object) string {
	return s.sign(must(json.Marshal(claims(change))), headers)
}

func (s signer) as(name string) signer { return signer{name, s.alg, s.key} }

func (s signer) by(alg jose.SignatureAlgorithm) signer { return signer{s.name, alg, s.key} }

// Public is the signer's entry in a set of keys.
func (s signer) public(alg, use string) jose.JSONWebKey {
	key := jose.JSONWebKey{Key: s.key, KeyID: s.name}
	if _, symmetric := s.key.([]byte); !symmetric {
		key = key.Public()
	}
	key.Algorithm, key.Use = alg, use
	return key
}

// Verdict is go-jose's own: of the signature by the set, of the times, the issuer and the audience.
func verdict(token string, set jose.JSONWebKeySet) error {
	parsed, err := jwt.ParseSigned(token, algs)
	if err != nil {
		return err
	}
	var found jwt.Claims
	if err := parsed.Claims(set, &found); err != nil {
		return err
	}
	return found.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{audience}, Time: made}, leeway)
}

// Apart says where go-jose's verdict is another, and by what modgate's has to be the one that is wanted all the same.
var apart = map[string]string{
	"no kid, RS256":       "go-jose asks for a kid where it has a set; RFC 7515 §4.1.4 makes it optional",
	"no kid, EdDSA":       "the same",
	"no exp":              "RFC 7519 §4.1.4 makes it optional; modgate wants an end",
	"exp null":            "the same",
	"RSA of 1024 bits":    "RFC 7518 §3.3: a key of 2048 bits or larger MUST be used",
	"key for encryption":  "RFC 7517 §4.2: the key is for encryption",
	"RS256 by a PS256":    "RFC 7517 §4.4, RFC 8725 §3.1: the key is for PS256",
	"PS256 by an RS256":   "the same the other way round",
	"b64 false":           "RFC 7797 §7: no JWT may have it",
	"signature not exact": "RFC 4648 §3.5 lets a decoder refuse bits that say nothing; RFC 7515 has one form",
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: xjose <word> <url>")
	}
	ring := newRing(os.Args[1], os.Args[2])
	result := printed{Issuer: issuer, Audience: audience, Keys: ring.set(), Tokens: ring.rows()}
	result.Small.Keys = []jose.JSONWebKey{ring.small.public(string(jose.RS256), "sig")}
	names := map[string]bool{}
	for _, row := range result.Tokens {
		err := verdict(row.Token, result.Keys)
		if _, differs := apart[row.Name]; (err == nil) == (row.Want == out) != differs {
			log.Fatalf("xjose: %s: %s is wanted, and go-jose says %v", row.Name, row.Want, err)
		}
		if names[row.Name] {
			log.Fatalf("xjose: %s twice", row.Name)
		}
		names[row.Name] = true
	}
	for name := range apart {
		if !names[name] {
			log.Fatalf("xjose: there is no %s", name)
		}
	}
	for n := range 60 {
		result.Spare = append(result.Spare, ring.p256.token(nil, nil))
		result.Nameless = append(result.Nameless, ring.p256.token(nil, object{"kid": nil}))
		result.Strangers = append(result.Strangers, ring.stranger.as(fmt.Sprintf("stranger-%d", n)).token(nil, nil))
	}
	for _, seconds := range []int64{-22, -20, 22, 24} {
		exp := made.Unix() + seconds
		result.Endings = append(result.Endings, ending{exp, ring.p256.token(object{"exp": exp}, nil)})
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatalf("xjose: %v", err)
	}
}
