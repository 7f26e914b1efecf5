// SPDX-License-Identifier: Apache-2.0

// Command load measures lighter-overlay beside containerd's own overlay snapshotter: one client, the
// same calls, both servers on the same disk, case by case in turns, over several rounds. It writes a
// report in Markdown. scripts/bench builds everything and calls it.
package main

import (
	"flag"
	"log"
	"os"
	"time"

	"lighter.test/measure"
)

type options struct {
	exe       [2]string
	dir       string
	out       string
	rounds    int
	seconds   float64
	snapshots int
	facts     measure.Facts
	command   string
	only      string
}

var serverNames = [2]string{"lighter-overlay", "containerd's overlay"}

func main() {
	var o options
	flag.StringVar(&o.exe[measure.Ours], "ours", "", "`executable` of lighter-overlay")
	flag.StringVar(&o.exe[measure.Reference], "reference", "", "`executable` of bench/overlay/reference")
	flag.StringVar(&o.dir, "dir", "/var/tmp", "`directory` on the disk to measure on")
	flag.StringVar(&o.out, "out", "", "report `file`; default standard output")
	flag.IntVar(&o.rounds, "rounds", 5, "alternated `rounds`")
	flag.Float64Var(&o.seconds, "seconds", 3, "`seconds` of each case in each round")
	flag.IntVar(&o.snapshots, "snapshots", 10000, "`number` of snapshots for List and the start")
	flag.Var(&o.facts, "fact", "`NAME=VALUE` for the report's list of what was measured")
	flag.StringVar(&o.command, "command", "", "`command` that makes this report")
	flag.StringVar(&o.only, "only", "", "only cases whose name begins so, and no report: for a profiler")
	flag.Parse()
	if o.exe[measure.Ours] == "" || o.exe[measure.Reference] == "" || flag.NArg() > 0 || o.rounds < 1 ||
		o.seconds <= 0 || o.snapshots < 100 {
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
