// SPDX-License-Identifier: Apache-2.0

// Command load measures lighter-content beside containerd's own content store: one client, the same calls,
// both servers on the same disk, case by case in turns, over several rounds. It writes a report in Markdown.
// scripts/bench builds everything and calls it.
package main

import (
	"flag"
	"log"
	"os"
	"time"

	"lighter.test/measure"
)

var serverNames = [2]string{"lighter-content", "containerd's store"}

type options struct {
	exe     [2]string
	client  string
	dir     string
	out     string
	rounds  int
	quick   bool
	facts   measure.Facts
	command string
	only    string
}

func main() {
	var o options
	flag.StringVar(&o.exe[measure.Ours], "ours", "", "`executable` of lighter-content")
	flag.StringVar(&o.exe[measure.Reference], "reference", "", "`executable` of bench/content/reference")
	flag.StringVar(&o.client, "client", "", "`executable` of bench/content/content_client.c")
	flag.StringVar(&o.dir, "dir", "/var/tmp", "`directory` on the disk to measure on")
	flag.StringVar(&o.out, "out", "", "report `file`; default standard output")
	flag.IntVar(&o.rounds, "rounds", 5, "alternated `rounds`")
	flag.BoolVar(&o.quick, "quick", false, "few and small blobs")
	flag.Var(&o.facts, "fact", "`NAME=VALUE` for the report's list of what was measured")
	flag.StringVar(&o.command, "command", "", "`command` that makes this report")
	flag.StringVar(&o.only, "only", "", "only cases whose name begins so, and no report: for a profiler")
	flag.Parse()
	if o.exe[measure.Ours] == "" || o.exe[measure.Reference] == "" || o.client == "" || flag.NArg() > 0 ||
		o.rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	log.SetFlags(log.Ltime)
	log.SetOutput(os.Stderr)

	if err := run(&o); err != nil {
		log.Fatal(err)
	}
}

func run(o *options) error {
	host, err := measure.DescribeHost(o.dir)
	if err != nil {
		return err
	}
	start := time.Now()
	res := measure.NewResults()
	for round := 0; round < o.rounds; round++ {
		log.Printf("round %d of %d", round+1, o.rounds)
		if err := runRound(o, round, res); err != nil {
			return err
		}
	}
	if o.only != "" {
		return nil
	}
	return writeReport(o, host, res, time.Since(start))
}
