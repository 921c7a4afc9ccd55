package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A database answers at its root as a real one does, below /sumdb/NAME/ as a module proxy that passes it on does, and with the
// modules themselves as that proxy does. How it misbehaves is told to it at /control, and may be for one of the two ways alone.
type database struct {
	name    string
	modules string
	honest  note.Signer
	wrong   note.Signer

	lock  sync.Mutex
	tree  *tree
	fork  *tree
	modes map[string]url.Values // by way: "proxy", "direct"
	count map[string]int
}

// A view is the database as one request sees it, through the misbehaviour that is set for its way.
type view struct {
	*database
	mode url.Values
}

func (v view) current() *tree {
	if v.mode.Has("fork") && v.fork != nil {
		return v.fork
	}
	return v.tree
}

func (v view) size() int64 {
	size := int64(len(v.current().records))
	if back, err := strconv.ParseInt(v.mode.Get("rollback"), 10, 64); err == nil {
		size = min(size, back)
	}
	return size
}

func (v view) Signed(context.Context) ([]byte, error) {
	v.lock.Lock()
	defer v.lock.Unlock()
	size := v.size()
	hash, err := tlog.TreeHash(size, v.current())
	if err != nil {
		return nil, err
	}
	by := v.honest
	switch {
	case v.mode.Has("wrongkey"):
		by = v.wrong
	case v.mode.Has("badsig"):
		by = broken{v.honest}
	}
	return note.Sign(&note.Note{Text: string(tlog.FormatTree(tlog.Tree{N: size, Hash: hash}))}, by)
}

func (v view) ReadRecords(_ context.Context, id, n int64) ([][]byte, error) {
	v.lock.Lock()
	defer v.lock.Unlock()
	if id+n > v.size() {
		return nil, fs.ErrNotExist
	}
	records := append([][]byte(nil), v.current().records[id:id+n]...)
	if v.mode.Has("badrecord") {
		for i := range records {
			records[i] = lie(records[i])
		}
	}
	return records, nil
}

func (v view) Lookup(_ context.Context, m module.Version) (int64, error) {
	v.lock.Lock()
	defer v.lock.Unlock()
	if other, err := strconv.ParseInt(v.mode.Get("otherrecord"), 10, 64); err == nil {
		// A record that is in the tree, and of another module.
		return other, nil
	}
	tree := v.current()
	if id, known := tree.index[m.String()]; known {
		if id >= v.size() {
			return 0, fs.ErrNotExist
		}
		return id, nil
	}
	if v.modules == "" || v.mode.Has("rollback") {
		return 0, fs.ErrNotExist
	}
	record, err := sums(v.modules, m)
	if err != nil {
		return 0, err
	}
	return tree.add(m.String(), record)
}

func (v view) ReadTileData(_ context.Context, t tlog.Tile) ([]byte, error) {
	v.lock.Lock()
	defer v.lock.Unlock()
	full := (t.N + 1) << uint(t.H*(t.L+1))
	if v.mode.Has("nopartial") && t.W < 1<<uint(t.H) && full <= v.size() {
		// A database need not keep the parts of a tile that is full by now.
		return nil, fs.ErrNotExist
	}
	if (t.N<<uint(t.H)+int64(t.W))<<uint(t.H*t.L) > v.size() {
		return nil, fs.ErrNotExist
	}
	data, err := tlog.ReadTileData(t, v.current())
	if err == nil && v.mode.Has("badtile") {
		data[len(data)/2] ^= 1
	}
	if err == nil && v.mode.Has("shorttile") {
		data = data[:len(data)-1]
	}
	return data, err
}

// answer is for the database's own paths, by the one way or the other.
func (d *database) answer(way string, w http.ResponseWriter, r *http.Request) {
	d.lock.Lock()
	mode := d.modes[way]
	d.lock.Unlock()
	switch {
	case mode.Has("hang"):
		<-r.Context().Done()
	case mode.Has("endless"):
		for err := error(nil); err == nil; {
			_, err = io.WriteString(w, strings.Repeat("endless\n", 1<<13))
		}
	case mode.Has("status"):
		status, _ := strconv.Atoi(mode.Get("status")) // A bad one was refused when it was set.
		http.Error(w, "told to fail", status)
	case r.URL.Path == "/supported" && way == "proxy":
		// 200, without a word.
	default:
		sumdb.NewServer(view{d, mode}).ServeHTTP(w, r)
	}
}

func (d *database) control(w http.ResponseWriter, r *http.Request) {
	d.lock.Lock()
	defer d.lock.Unlock()
	switch query := r.URL.Query(); {
	case strings.HasSuffix(r.URL.Path, "/count"):
		_ = json.NewEncoder(w).Encode(d.count) // Whoever asked may have gone.
	case strings.HasSuffix(r.URL.Path, "/reset"):
		d.count = map[string]int{}
	default:
		if err := d.set(query); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}
}

// set changes the misbehaviour, which replaces what was set before. "honest" and words that only change the tree leave none.
func (d *database) set(query url.Values) error {
	numbers := map[string]int{}
	for word := range query {
		switch word {
		case "fork", "grow", "rollback", "otherrecord", "status":
			number, err := strconv.Atoi(query.Get(word))
			if err != nil {
				return err
			}
			numbers[word] = number
		case "on", "honest", "badsig", "wrongkey", "badtile", "shorttile", "badrecord", "nopartial", "hang", "endless":
		default:
			return fmt.Errorf("no misbehaviour %q", word)
		}
	}
	if query.Has("fork") {
		fork, err := d.tree.forked(numbers["fork"])
		if err != nil {
			return err
		}
		d.fork = fork
	}
	if err := (view{d, query}).current().pad(numbers["grow"]); err != nil {
		return err
	}
	for way := range d.modes {
		if on := query.Get("on"); on == "" || on == way {
			d.modes[way] = query
		}
	}
	return nil
}

func serve(arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	name := flags.String("key", "", "the database's name")
	seed := flags.String("seed", "", "what its key is made of, besides the name")
	folder := flags.String("modules", "", "modules as the module cache keeps downloads")
	pad := flags.Int("pad", 0, "how many made-up records come first")
	listen := flags.String("listen", "127.0.0.1:0", "where to listen")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *name == "" {
		return errors.New("-key is needed")
	}
	honest, verifier, err := signer(*name, *seed)
	if err != nil {
		return err
	}
	wrong, _, err := signer(*name, *seed+"wrong")
	if err != nil {
		return err
	}
	d := &database{
		name: *name, modules: *folder, honest: honest, wrong: wrong,
		tree:  &tree{index: map[string]int64{}},
		modes: map[string]url.Values{"proxy": nil, "direct": nil},
		count: map[string]int{},
	}
	if err := d.tree.pad(*pad); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", verifier, listener.Addr())
	return http.Serve(listener, d)
}

func (d *database) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if strings.HasPrefix(path, "/control") {
		d.control(w, r)
		return
	}
	d.lock.Lock()
	d.count[path]++
	d.lock.Unlock()
	if rest, proxied := strings.CutPrefix(path, "/sumdb/"+d.name); proxied {
		r.URL.Path = rest
		d.answer("proxy", w, r)
	} else if strings.Contains(path, "/@") && d.modules != "" {
		http.FileServer(http.Dir(d.modules)).ServeHTTP(w, r)
	} else {
		d.answer("direct", w, r)
	}
}
