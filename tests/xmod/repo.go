package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"go/version"
	"io"
	"io/fs"
	"log"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/zip"
)

// probes are versions that may be retracted.
var probes = []string{"v1.0.0", "v1.0.1-pre", "v1.0.1", "v1.1.0", "v2.0.0+incompatible"}

// goMod says which path a go.mod declares, and what else is read of one, given in hexadecimal digits: the language, whether that
// is Go 1.24 or newer, which of the probes are retracted, and the intervals.
func goMod(value string) string {
	text := unhex(value)
	if bytes.ContainsFunc(text, isUnknown) {
		return "unknown"
	}
	said := []string{shown(modfile.ModulePath(text))}
	file, err := modfile.ParseLax("go.mod", text, nil)
	if err != nil {
		return strings.Join(append(said, "invalid"), " ")
	}
	language := ""
	if file.Go != nil {
		language = file.Go.Version
	}
	// As x/mod/zip does it.
	said = append(said, shown(language), verdict(version.Compare(version.Lang("go"+language), "go1.24") >= 0))
	for _, probe := range probes {
		retracted := false
		for _, r := range file.Retract {
			retracted = retracted || semver.Compare(r.Low, probe) <= 0 && semver.Compare(probe, r.High) <= 0
		}
		said = append(said, verdict(retracted))
	}
	for _, r := range file.Retract {
		said = append(said, shown(r.Low)+".."+shown(r.High))
	}
	return strings.Join(said, " ")
}

// entry is a file of a tree, with contents that need not be as large as it says.
type entry struct {
	name     string
	mode     fs.FileMode
	size     int64
	contents []byte
}

func (e entry) Path() string                 { return e.name }
func (e entry) Lstat() (fs.FileInfo, error)  { return e, nil }
func (e entry) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(e.contents)), nil }
func (e entry) Name() string                 { return e.name }
func (e entry) Size() int64                  { return e.size }
func (e entry) Mode() fs.FileMode            { return e.mode }
func (e entry) ModTime() time.Time           { return time.Time{} }
func (e entry) IsDir() bool                  { return e.mode.IsDir() }
func (e entry) Sys() any                     { return nil }

// files says which files of a tree are in a module's zip. The value is the text of the go.mod at its top and then for each file
// its kind (r or l), size and name; texts are in hexadecimal digits.
func files(value string) string {
	fields := strings.Split(value, " ")
	var tree []zip.File
	for _, field := range fields[1:] {
		part := strings.Split(field, ":")
		size, err := strconv.ParseInt(part[1], 10, 64)
		if err != nil {
			log.Fatalf("xmod: a size: %v", err)
		}
		file := entry{name: string(unhex(part[2])), size: size}
		if part[0] == "l" {
			file.mode = fs.ModeSymlink
		}
		if strings.ContainsFunc(file.name, isUnknown) {
			return "unknown"
		}
		if file.name == "go.mod" {
			file.contents = unhex(fields[0])
		}
		tree = append(tree, file)
	}
	checked, err := zip.CheckFiles(tree)
	if err != nil {
		return "refused"
	}
	said := []string{"chosen"}
	for _, name := range checked.Valid {
		said = append(said, shown(name))
	}
	return strings.Join(said, " ")
}

// pseudoParts says what a pseudo-version is made of.
func pseudoParts(value string) string {
	revision, err := module.PseudoVersionRev(value)
	if err != nil {
		return "none"
	}
	digits := "undated"
	if t, err := module.PseudoVersionTime(value); err == nil {
		digits = t.Format(module.PseudoVersionTimestampFormat)
	}
	base, err := module.PseudoVersionBase(value)
	var why *module.InvalidVersionError
	if errors.As(err, &why) {
		base = why.Err.Error()
	}
	return strings.Join([]string{revision, digits, base}, "\t")
}

// pseudoBuild makes a pseudo-version of a major version, a time in seconds, a revision and a base, which may hold blanks.
func pseudoBuild(value string) string {
	part := strings.SplitN(value, " ", 4)
	seconds, err := strconv.ParseInt(part[1], 10, 64)
	if err != nil {
		log.Fatalf("xmod: a time: %v", err)
	}
	return module.PseudoVersion(part[0], part[3], time.Unix(seconds, 0), part[2])
}

// isUnknown says whether Go's Unicode does not know a character yet.
func isUnknown(r rune) bool {
	return !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.Cc, unicode.Cf, unicode.Co)
}

// characters says of each of 256 characters whether it may be in a file's name (1) and in a word of a go.mod (2), as the sum of
// both, or u where it is unknown.
func characters(value string) string {
	first, err := strconv.ParseInt(value, 10, 32)
	if err != nil {
		log.Fatalf("xmod: a character: %v", err)
	}
	said := make([]byte, 256)
	for at := range said {
		said[at] = character(rune(first) + rune(at))
	}
	return string(said)
}

func character(r rune) byte {
	if isUnknown(r) {
		return 'u'
	}
	said := byte('0')
	if module.CheckFilePath("x"+string(r)+"x") == nil {
		said++
	}
	if file, err := modfile.ParseLax("go.mod", []byte("retract x"+string(r)+"x"), nil); err == nil && len(file.Retract) == 1 {
		if file.Retract[0].Low == "x"+string(r)+"x" {
			said += 2
		}
	}
	return said
}

var broken = regexp.MustCompile("\uFFFD+")

// shown is a text in printable ASCII. How many characters stand for bytes that are not UTF-8 is not compared.
func shown(text string) string {
	text = broken.ReplaceAllString(strings.ToValidUTF8(text, "\uFFFD"), "\uFFFD")
	var said strings.Builder
	for _, b := range []byte(text) {
		if '!' <= b && b <= '~' && b != '%' {
			said.WriteByte(b)
		} else {
			fmt.Fprintf(&said, "%%%02x", b)
		}
	}
	return said.String()
}

func unhex(digits string) []byte {
	text, err := hex.DecodeString(digits)
	if err != nil {
		log.Fatalf("xmod: %v", err)
	}
	return text
}
