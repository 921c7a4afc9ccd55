// Xsumdb is a checksum database that can be told to cheat, the client that the go command has, and x/mod's verdicts, so that a
// test can hold modgate against all three.
//
//	xsumdb serve -key NAME [-modules DIR] [-pad N] [-seed TEXT] [-listen ADDRESS]
//	xsumdb client -url URL -vkey KEY -store DIR MODULE@VERSION…
//	xsumdb rows < rows-in-JSON
//	xsumdb proofs SIZE…, in rising order
package main

import (
	"fmt"
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("xsumdb: ")
	if len(os.Args) < 2 {
		log.Fatal("usage: xsumdb serve | client | rows | proofs")
	}
	commands := map[string]func(arguments []string) error{"serve": serve, "client": client, "rows": rows, "proofs": proofs}
	run, known := commands[os.Args[1]]
	if !known {
		log.Fatalf("no command %q", os.Args[1])
	}
	if err := run(os.Args[2:]); err != nil {
		if err == errSecurity {
			fmt.Println("SECURITY")
			os.Exit(3)
		}
		log.Fatal(err)
	}
}
