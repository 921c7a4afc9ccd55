package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb"
)

var errSecurity = errors.New("the database has been caught")

// A store keeps what a client knows in a folder, and reads the rest over HTTP.
type store struct {
	url, key, folder string

	lock   sync.Mutex
	caught bool
}

func (s *store) ReadRemote(path string) ([]byte, error) {
	answer, err := http.Get(s.url + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", path, answer.Status, bytes.TrimSpace(body))
	}
	return body, nil
}

func (s *store) ReadConfig(file string) ([]byte, error) {
	if file == "key" {
		return []byte(s.key), nil
	}
	data, err := os.ReadFile(filepath.Join(s.folder, "config", file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (s *store) WriteConfig(file string, old, new []byte) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	now, err := s.ReadConfig(file)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, old) {
		return sumdb.ErrWriteConflict
	}
	return write(filepath.Join(s.folder, "config", file), new)
}

func (s *store) ReadCache(file string) ([]byte, error) {
	return os.ReadFile(filepath.Join(s.folder, "cache", file))
}

func (s *store) WriteCache(file string, data []byte) {
	if err := write(filepath.Join(s.folder, "cache", file), data); err != nil {
		s.Log(err.Error())
	}
}

func (s *store) Log(message string) { fmt.Fprintln(os.Stderr, message) }

func (s *store) SecurityError(message string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.caught = true
	s.Log(message)
}

func write(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o666)
}

func client(arguments []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	s := &store{}
	flags.StringVar(&s.url, "url", "", "where the database answers")
	flags.StringVar(&s.key, "vkey", "", "its verifier key")
	flags.StringVar(&s.folder, "store", "", "a folder to keep what is known in")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	c := sumdb.NewClient(s)
	for _, name := range flags.Args() {
		path, version, _ := strings.Cut(name, "@")
		lines, err := c.Lookup(path, version)
		if err != nil {
			fmt.Printf("%s error %s\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Printf("%s ok %s\n", name, strings.Join(lines, "; "))
	}
	if s.caught {
		return errSecurity
	}
	return nil
}
