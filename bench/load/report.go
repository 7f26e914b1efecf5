// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// How a row's two values are held against its target.
type rule int

const (
	atLeast rule = iota // ours / reference is at least the target
	atMost              // ours / reference is at most the target
	below               // ours is below the target, whatever the reference's is
)

type row struct {
	title  string
	name   string
	rule   rule
	target float64
	unit   string
	get    func(sample) float64
	digits int
}

func value(s sample) float64 { return s.value }

func p99ms(s sample) float64 { return s.p99.Seconds() * 1000 }

func mib(s sample) float64 { return s.value / (1 << 20) }

// rows are the figures that the project has set itself.
func rows(o *options) []row {
	held := thousands(float64(o.snapshots), 0)
	return []row{
		{"Prepare+Commit chain, 1 client", "chain/1", atLeast, 2, "/s", value, 0},
		{"Prepare+Commit chain, 8 clients", "chain/8", atLeast, 6, "/s", value, 0},
		{"Prepare+Commit chain, 32 clients", "chain/32", atLeast, 10, "/s", value, 0},
		{"Prepare+Remove on 8 layers, 1 client", "loop/1", atLeast, 2, "/s", value, 0},
		{"Prepare+Remove on 8 layers, 8 clients", "loop/8", atLeast, 4, "/s", value, 0},
		{"Prepare+Remove on 8 layers, 32 clients", "loop/32", atLeast, 6, "/s", value, 0},
		{"Stat, 1 client", "stat/1", atLeast, 1.2, "/s", value, 0},
		{"Stat, 32 clients", "stat/32", atLeast, 1.3, "/s", value, 0},
		{"Mounts, 1 client", "mounts/1", atLeast, 1.2, "/s", value, 0},
		{"Mounts, 32 clients", "mounts/32", atLeast, 1.3, "/s", value, 0},
		{"List of " + held + " snapshots", "list", atLeast, 2, "/s", value, 1},
		{"p99 of Prepare, 8 clients", "prepare/8", atMost, 1.0 / 3, " ms", p99ms, 2},
		{"start to ready with " + held + " snapshots", "start", below, 100, " ms", value, 1},
		{"private memory after the whole load", "private", below, 8, " MiB", mib, 1},
	}
}

// verdict holds a row's medians against its target.
func (r row) verdict(got [2]float64) (target string, met bool) {
	ratio := got[ours] / got[reference]
	switch r.rule {
	case atLeast:
		return fmt.Sprintf("at least %gx", r.target), ratio >= r.target
	case atMost:
		return fmt.Sprintf("at most %.2fx", r.target), ratio <= r.target
	default:
		return fmt.Sprintf("under %g%s", r.target, r.unit), got[ours] < r.target
	}
}

const keepMark = "<!-- What follows is written by hand and kept when the report is made again. -->"

func writeReport(o *options, host facts, res *results, took time.Duration) error {
	report := makeReport(o, host, res, took)
	if o.out == "" {
		_, err := os.Stdout.Write(report)
		return err
	}
	old, err := os.ReadFile(o.out)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if at := bytes.Index(old, []byte(keepMark)); at >= 0 {
		report = append(append(report, '\n'), old[at:]...)
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.out, report, 0o644)
}

func makeReport(o *options, host facts, res *results, took time.Duration) []byte {
	var b bytes.Buffer

	fmt.Fprintf(&b, `# Benchmarks

lighter-overlay beside containerd's own overlay snapshotter, which a small Go program
(`+"`bench/reference`"+`: containerd's `+"`contrib/snapshotservice`"+`, asynchronous removal as in containerd's
plugin) serves as a proxy plugin. Made by

    %s

on %s, in %v (alternated rounds: %d, each case %g s). Values are medians over the rounds;
the range behind a ratio is that of the single rounds.

`, o.command, time.Now().UTC().Format("2006-01-02"), took.Round(time.Second),
		o.rounds, o.seconds)

	fmt.Fprintf(&b, "| | target | %s | %s | ratio | met? |\n|---|---|---:|---:|---:|---|\n",
		serverNames[ours], serverNames[reference])
	missed := 0
	for _, r := range rows(o) {
		both := res.of[r.name]
		var got [2]float64
		var perRound [2][]float64
		for which := range got {
			perRound[which] = values(both[which], r.get)
			got[which] = median(perRound[which])
		}
		low, high := 0.0, 0.0
		for i := range perRound[ours] {
			ratio := perRound[ours][i] / perRound[reference][i]
			if i == 0 || ratio < low {
				low = ratio
			}
			if i == 0 || ratio > high {
				high = ratio
			}
		}
		target, met := r.verdict(got)
		answer := "yes"
		if !met {
			answer = "**no**"
			missed++
		}
		fmt.Fprintf(&b, "| %s | %s | %s%s | %s%s | %.2fx (%.2f to %.2f) | %s |\n", r.title, target,
			thousands(got[ours], r.digits), r.unit, thousands(got[reference], r.digits), r.unit,
			got[ours]/got[reference], low, high, answer)
	}
	if missed > 0 {
		fmt.Fprintf(&b, "\n%d of %d targets are not met.\n", missed, len(rows(o)))
	} else {
		fmt.Fprintf(&b, "\nAll %d targets are met.\n", len(rows(o)))
	}

	fmt.Fprintf(&b, `
Further figures, of the same runs: latency and the server's own CPU time for each operation (a chain's
operation is a Prepare and a Commit, a loop's a Prepare and a Remove).

| | p50, ms | p99, ms | CPU, µs | p50, ms | p99, ms | CPU, µs |
|---|---:|---:|---:|---:|---:|---:|
| | %s | | | %s | | |
`, serverNames[ours], serverNames[reference])
	for _, name := range []string{"chain/1", "chain/8", "chain/32", "loop/1", "loop/8", "loop/32", "stat/1",
		"stat/32", "mounts/1", "mounts/32", "prepare/8"} {
		fmt.Fprintf(&b, "| %s |", name)
		for which := range serverNames {
			samples := res.of[name][which]
			fmt.Fprintf(&b, " %.3f | %.3f | %.0f |",
				median(values(samples, func(s sample) float64 { return s.p50.Seconds() * 1000 })),
				median(values(samples, p99ms)),
				median(values(samples, func(s sample) float64 { return s.cpu.Seconds() * 1e6 })))
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, `
| | %s | %s |
|---|---:|---:|
`, serverNames[ours], serverNames[reference])
	for _, r := range []row{
		{"Prepare, 8 clients", casePrepare + "/8", 0, 0, "/s", value, 0},
		{"Cleanup after the loop with 32 clients, directories", caseCleanup, 0, 0, "/s", value, 0},
		{"resident memory (Rss, with shared libraries) after the whole load", caseRss, 0, 0, " MiB", mib, 1},
	} {
		fmt.Fprintf(&b, "| %s |", r.title)
		for which := range serverNames {
			fmt.Fprintf(&b, " %s%s |", thousands(median(values(res.of[r.name][which], r.get)), r.digits),
				r.unit)
		}
		fmt.Fprintln(&b)
	}

	fmt.Fprintf(&b, `
How it is measured:

- One Go client for both, containerd 1.6's proxy snapshotter; all clients share one connection, as those
  of a containerd do, and run on the same machine as the server. At many clients much of the machine's
  time is the client's, which pulls the ratio of cheap calls towards 1.
- Both servers run throughout a round, each on a fresh root on the same disk; each case goes to the one and
  then to the other, and who is first changes with every round. Before each turn the disk is synced.
- The chain begins a new image every %d layers. Stat and Mounts go to active snapshots on 8 layers. The
  Prepares whose p99 is given fill the store to %s snapshots, on 8 layers; then List, then memory
  (Private_Dirty and Rss of smaps_rollup), then %d starts, of which the median counts: from exec until a first
  Stat is answered, with the page cache warm.
- Every answer is checked: errors end the run; mounts must have the right number of layers; after each case
  the store must hold exactly the expected snapshots, and after Cleanup the disk as many directories.
- Removal of directories is deferred to Cleanup on both sides, their default; Cleanup is called between the
  cases and not timed, but for the figure above.

Durability: a call that has returned survives a power cut. containerd's overlay commits each call by itself in
bbolt, with two fdatasync; it never syncs the directories that it makes, which only last once the file system
has committed its journal for another reason: there it promises less than lighter-overlay. lighter-overlay's row is in sqlite's write-ahead log with `+"`synchronous=FULL`"+`, where the calls of
many clients share one fsync, and the directory that it names has been made durable before. Neither has any
unsafe option set.

What it was measured on:

`, chainLayers, thousands(float64(o.snapshots), 0), startTimes)
	for _, fact := range append(host, o.facts...) {
		at := strings.IndexByte(fact, '=')
		fmt.Fprintf(&b, "- %s: %s\n", fact[:at], fact[at+1:])
	}
	return b.Bytes()
}

// thousands writes 12345.6 as 12,346, or with digits behind the point.
func thousands(v float64, digits int) string {
	s := fmt.Sprintf("%.*f", digits, v)
	whole, rest := s, ""
	if at := strings.IndexByte(s, '.'); at >= 0 {
		whole, rest = s[:at], s[at:]
	}
	for at := len(whole) - 3; at > 0; at -= 3 {
		whole = whole[:at] + "," + whole[at:]
	}
	return whole + rest
}
