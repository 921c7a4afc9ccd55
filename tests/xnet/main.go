// Xnet shows how Go goes out, so that a test can compare modgate's own ways with it, row by row.
//
// As "xnet rows" it prints what golang.org/x/net says about the proxy variables: it reads rows of a kind, a tab, and what the
// kind needs, and prints one line for each. As "xnet listen <folder>" it is an https server that writes its certificate and
// address to files of the folder and answers every request with the Authorization that it came with.
package main

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/idna"
)

var kinds = map[string]func(value string) string{
	"exempt": exempt,
	"proxy":  proxy,
}

// Exempt says whether a URL is reached without the proxy, by a value of NO_PROXY.
func exempt(value string) string {
	text, noProxy, _ := strings.Cut(value, "\t")
	target, err := url.Parse(text)
	if err != nil {
		return "bad"
	}
	config := httpproxy.Config{HTTPProxy: "http://proxy.example", HTTPSProxy: "http://proxy.example", NoProxy: noProxy}
	chosen, err := config.ProxyFunc()(target)
	switch {
	case err != nil:
		return "bad"
	case chosen == nil:
		return "yes"
	default:
		return "no"
	}
}

// Proxy says what a value of HTTPS_PROXY means to net/http, which knows four schemes.
func proxy(value string) string {
	config := httpproxy.Config{HTTPSProxy: value}
	chosen, err := config.ProxyFunc()(&url.URL{Scheme: "https", Host: "server.example"})
	if err != nil || chosen == nil {
		return "none"
	}
	port, known := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[chosen.Scheme]
	host, err := idna.Lookup.ToASCII(chosen.Hostname())
	if err != nil {
		host = chosen.Hostname()
	}
	if !known || host == "" {
		return "bad"
	}
	if chosen.Port() != "" {
		port = chosen.Port()
	}
	line := fmt.Sprintf("%s %s %s", chosen.Scheme, strings.ToLower(host), port)
	if user := chosen.User; user != nil {
		password, _ := user.Password()
		line += fmt.Sprintf(" %x %x", user.Username(), password)
	}
	return line
}

func rows() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		row, err := in.ReadString('\n')
		if err == io.EOF && row == "" {
			break
		}
		if err != nil {
			log.Fatalf("xnet: the last row has no end: %v", err)
		}
		kind, value, _ := strings.Cut(strings.TrimSuffix(row, "\n"), "\t")
		judge, known := kinds[kind]
		if !known {
			log.Fatalf("xnet: a row of the unknown kind %q", kind)
		}
		fmt.Fprintln(out, judge(value))
	}
	if err := out.Flush(); err != nil {
		log.Fatalf("xnet: %v", err)
	}
}

// Listen answers every request with a list of versions, and notes its path and Authorization in the file "seen".
func listen(folder string) {
	seen, err := os.Create(filepath.Join(folder, "seen"))
	if err != nil {
		log.Fatalf("xnet: %v", err)
	}
	var lock sync.Mutex
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		fmt.Fprintf(seen, "%s\t%s\n", r.URL.Path, r.Header.Get("Authorization"))
		fmt.Fprintln(w, "v1.0.0")
	}))
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for _, file := range []struct{ name, content string }{
		{"certificate.pem", string(certificate)},
		{"address.new", server.Listener.Addr().String()},
	} {
		if err := os.WriteFile(filepath.Join(folder, file.name), []byte(file.content), 0o600); err != nil {
			log.Fatalf("xnet: %v", err)
		}
	}
	// Whoever finds the address finds all of it.
	if err := os.Rename(filepath.Join(folder, "address.new"), filepath.Join(folder, "address")); err != nil {
		log.Fatalf("xnet: %v", err)
	}
	select {}
}

func main() {
	log.SetFlags(0)
	switch {
	case len(os.Args) == 2 && os.Args[1] == "rows":
		rows()
	case len(os.Args) == 3 && os.Args[1] == "listen":
		listen(os.Args[2])
	default:
		log.Fatal("usage: xnet rows | xnet listen <folder>")
	}
}
