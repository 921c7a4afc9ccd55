package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A row is something to be read. What need not be UTF-8 comes in base64, as JSON has bytes in Go.
type row struct {
	Kind string
	VKey string
	Text string
	Msg  []byte
}

// A verdict is empty but for OK where x/mod refuses.
type verdict struct {
	OK   bool   `json:"ok"`
	Said string `json:"said,omitempty"`
	Text []byte `json:"text,omitempty"`
	Rest []byte `json:"rest,omitempty"`
}

func judge(r row) (verdict, error) {
	switch r.Kind {
	case "note":
		verifier, err := note.NewVerifier(r.VKey)
		if err != nil {
			return verdict{}, fmt.Errorf("a row of kind note with a bad key: %v", err)
		}
		opened, err := note.Open(r.Msg, note.VerifierList(verifier))
		if err != nil {
			return verdict{}, nil
		}
		return verdict{OK: true, Text: []byte(opened.Text)}, nil
	case "tree":
		tree, err := tlog.ParseTree(r.Msg)
		if err != nil {
			return verdict{}, nil
		}
		return verdict{OK: true, Said: fmt.Sprint(tree.N, " ", tree.Hash)}, nil
	case "record":
		id, text, rest, err := tlog.ParseRecord(r.Msg)
		if err != nil {
			return verdict{}, nil
		}
		return verdict{OK: true, Said: fmt.Sprint(id), Text: text, Rest: rest}, nil
	case "tilepath":
		tile, err := tlog.ParseTilePath(r.Text)
		if err != nil {
			return verdict{}, nil
		}
		return verdict{OK: true, Said: fmt.Sprintf("%d %d %d %d", tile.H, tile.L, tile.N, tile.W)}, nil
	case "vkey":
		verifier, err := note.NewVerifier(r.Text)
		if err != nil {
			return verdict{}, nil
		}
		return verdict{OK: true, Said: fmt.Sprintf("%s %08x", verifier.Name(), verifier.KeyHash())}, nil
	case "gomod":
		sum, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(r.Msg)), nil
		})
		return verdict{OK: err == nil, Said: sum}, nil
	case "zip":
		sum, err := sumOfZip(r.Msg)
		return verdict{OK: err == nil, Said: sum}, nil
	}
	return verdict{}, fmt.Errorf("a row of the unknown kind %q", r.Kind)
}

// sumOfZip gives the bytes a file, for dirhash reads nothing else.
func sumOfZip(zip []byte) (string, error) {
	file, err := os.CreateTemp("", "xsumdb*.zip")
	if err != nil {
		return "", err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := file.Write(zip); err != nil {
		return "", err
	}
	return dirhash.HashZip(file.Name(), dirhash.Hash1)
}

func rows([]string) error {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	buffered := bufio.NewWriter(os.Stdout)
	out := json.NewEncoder(buffered)
	for {
		var r row
		if err := in.Decode(&r); err == io.EOF {
			return buffered.Flush()
		} else if err != nil {
			return err
		}
		said, err := judge(r)
		if err != nil {
			return err
		}
		if err := out.Encode(said); err != nil {
			return err
		}
	}
}

// A proof says of the tree of so many made-up records what its hash is, how the tiles are called that it is published in, and
// where the hashes of some records lie.
type proof struct {
	Size  int64    `json:"size"`
	Hash  string   `json:"hash"`
	Tiles []string `json:"tiles"`
	// By record: the tile that its hash is in, as wide as the tree allows.
	Leaves map[int64]string `json:"leaves"`
}

func proofs(sizes []string) error {
	out := json.NewEncoder(os.Stdout)
	t := &tree{index: map[string]int64{}}
	for _, text := range sizes {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		if err := t.pad(int(size) - len(t.records)); err != nil {
			return err
		}
		hash, err := tlog.TreeHash(size, t)
		if err != nil {
			return err
		}
		p := proof{Size: size, Hash: hash.String(), Tiles: []string{}, Leaves: map[int64]string{}}
		for _, tile := range tlog.NewTiles(8, 0, size) {
			p.Tiles = append(p.Tiles, tile.Path())
		}
		for _, id := range []int64{0, 1, 255, 256, size / 2, size - 1} {
			if 0 <= id && id < size {
				tile := tlog.TileForIndex(8, tlog.StoredHashIndex(0, id))
				tile.W = int(min(256, size-tile.N<<8))
				p.Leaves[id] = tile.Path()
			}
		}
		if err := out.Encode(p); err != nil {
			return err
		}
	}
	return nil
}
