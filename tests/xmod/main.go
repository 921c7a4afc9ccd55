// Xmod prints what golang.org/x/mod says about module paths, versions, patterns, and what repositories hold, so that a test can
// compare modgate's own verdicts with it, row by row.
//
// It reads rows of a kind, a tab and a value, and prints one line for each.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

var kinds = map[string]func(value string) string{
	"escpath": func(value string) string {
		return text(module.UnescapePath(value))
	},
	"path": func(value string) string {
		return verdict(module.CheckPath(value) == nil)
	},
	"escversion": func(value string) string {
		return text(module.UnescapeVersion(value))
	},
	"check": func(value string) string {
		modPath, version, _ := strings.Cut(value, "@")
		return verdict(module.Check(modPath, version) == nil && module.CanonicalVersion(version) == version)
	},
	"semvervalid": func(value string) string {
		switch {
		case !semver.IsValid(value):
			return "invalid"
		case module.CanonicalVersion(value) == value:
			return "canonical"
		case semver.Canonical(value) != value && semver.Build(value) == "":
			return "short"
		default:
			return "metadata"
		}
	},
	"pseudo": func(value string) string {
		return verdict(module.IsPseudoVersion(value))
	},
	"compare": func(value string) string {
		a, b, _ := strings.Cut(value, " ")
		return fmt.Sprint(semver.Compare(a, b))
	},
	"match": func(value string) string {
		globs, target, _ := strings.Cut(value, " ")
		for glob := range strings.SplitSeq(globs, ",") {
			if _, err := path.Match(strings.TrimSuffix(glob, "/"), ""); errors.Is(err, path.ErrBadPattern) {
				return "malformed"
			}
		}
		return verdict(module.MatchPrefixPatterns(globs, target))
	},
	"gomod":       goMod,
	"files":       files,
	"pseudoparts": pseudoParts,
	"pseudobuild": pseudoBuild,
	"characters":  characters,
}

func verdict(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

func text(decoded string, err error) string {
	if err != nil {
		return "no"
	}
	return "yes " + decoded
}

func main() {
	log.SetFlags(0)
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		row, err := in.ReadString('\n')
		if err == io.EOF && row == "" {
			break
		}
		if err != nil {
			log.Fatalf("xmod: the last row has no end: %v", err)
		}
		kind, value, _ := strings.Cut(strings.TrimSuffix(row, "\n"), "\t")
		judge, known := kinds[kind]
		if !known {
			log.Fatalf("xmod: a row of the unknown kind %q", kind)
		}
		fmt.Fprintln(out, judge(value))
	}
	if err := out.Flush(); err != nil {
		log.Fatalf("xmod: %v", err)
	}
}
