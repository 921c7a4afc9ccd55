package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A tree is a log of records in memory, with all hashes that are stored of one.
type tree struct {
	records [][]byte
	index   map[string]int64
	hashes  []tlog.Hash
}

// ReadHashes makes a tree a tlog.HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(t.hashes)) {
			return nil, fs.ErrNotExist
		}
		found[i] = t.hashes[index]
	}
	return found, nil
}

func (t *tree) add(key string, record []byte) (int64, error) {
	id := int64(len(t.records))
	hashes, err := tlog.StoredHashes(id, record, t)
	if err != nil {
		return 0, err
	}
	t.hashes = append(t.hashes, hashes...)
	t.records = append(t.records, record)
	t.index[key] = id
	return id, nil
}

// pad adds made-up records, the same ones each time.
func (t *tree) pad(count int) error {
	for range count {
		n := len(t.records)
		path := fmt.Sprintf("example.org/pad%d", n)
		if _, err := t.add(path+"@v1.0.0", madeUp(path, "v1.0.0", "")); err != nil {
			return err
		}
	}
	return nil
}

// madeUp is a record of sums that no files have.
func madeUp(path, version, salt string) []byte {
	sum := func(what string) string {
		hash := sha256.Sum256([]byte(path + version + what + salt))
		return base64.StdEncoding.EncodeToString(hash[:])
	}
	return fmt.Appendf(nil, "%s %s h1:%s\n%s %s/go.mod h1:%s\n", path, version, sum("zip"), path, version, sum("mod"))
}

// forked is a copy with one record changed, so that it has another history under the same key.
func (t *tree) forked(at int) (*tree, error) {
	if at < 0 || at >= len(t.records) {
		return nil, fmt.Errorf("no record %d to change in a tree of %d", at, len(t.records))
	}
	keys := make([]string, len(t.records))
	for key, id := range t.index {
		keys[id] = key
	}
	other := &tree{index: map[string]int64{}}
	for id, record := range t.records {
		if id == at {
			record = lie(record)
		}
		if _, err := other.add(keys[id], record); err != nil {
			return nil, err
		}
	}
	return other, nil
}

// lie is a record with one other character in each sum.
func lie(record []byte) []byte {
	changed := slices.Clone(record)
	for at := range changed {
		if bytes.HasPrefix(changed[at:], []byte(" h1:")) {
			if changed[at+4] == 'A' {
				changed[at+4] = 'B'
			} else {
				changed[at+4] = 'A'
			}
		}
	}
	return changed
}

// sums makes a record of the files of a module in a folder laid out as the module cache's downloads are.
func sums(folder string, m module.Version) ([]byte, error) {
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return nil, err
	}
	version, err := module.EscapeVersion(m.Version)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(folder, filepath.FromSlash(path), "@v", version)
	zip, err := dirhash.HashZip(file+".zip", dirhash.Hash1)
	if err != nil {
		return nil, err
	}
	mod, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return os.Open(file + ".mod") })
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s %s %s\n%s %s/go.mod %s\n", m.Path, m.Version, zip, m.Path, m.Version, mod), nil
}

// signer makes a key out of a name and a seed: the same one each time, so that a database can be started again.
func signer(name, seed string) (note.Signer, string, error) {
	hash := sha256.Sum256([]byte(name + "\n" + seed))
	private := ed25519.NewKeyFromSeed(hash[:])
	verifier, err := note.NewEd25519VerifierKey(name, private.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, "", err
	}
	known, err := note.NewVerifier(verifier)
	if err != nil {
		return nil, "", err
	}
	secret := base64.StdEncoding.EncodeToString(append([]byte{1}, private.Seed()...))
	signer, err := note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, known.KeyHash(), secret))
	return signer, verifier, err
}

// broken signs with the right key's name and hash, and the wrong bytes.
type broken struct{ note.Signer }

func (b broken) Sign(text []byte) ([]byte, error) {
	signature, err := b.Signer.Sign(text)
	if err == nil {
		binary.BigEndian.PutUint32(signature[8:], ^binary.BigEndian.Uint32(signature[8:]))
	}
	return signature, err
}
