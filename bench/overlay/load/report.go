// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"time"

	"lighter.test/measure"
)

// rows are the figures that the project has set itself.
func rows(o *options) []measure.Row {
	held := measure.Thousands(float64(o.snapshots), 0)
	return []measure.Row{
		{"Prepare+Commit chain, 1 client", "chain/1", measure.AtLeast, 2, "/s", measure.Value, 0},
		{"Prepare+Commit chain, 8 clients", "chain/8", measure.AtLeast, 6, "/s", measure.Value, 0},
		{"Prepare+Commit chain, 32 clients", "chain/32", measure.AtLeast, 10, "/s", measure.Value, 0},
		{"Prepare+Remove on 8 layers, 1 client", "loop/1", measure.AtLeast, 2, "/s", measure.Value, 0},
		{"Prepare+Remove on 8 layers, 8 clients", "loop/8", measure.AtLeast, 4, "/s", measure.Value, 0},
		{"Prepare+Remove on 8 layers, 32 clients", "loop/32", measure.AtLeast, 6, "/s", measure.Value, 0},
		{"Stat, 1 client", "stat/1", measure.AtLeast, 1.2, "/s", measure.Value, 0},
		{"Stat, 32 clients", "stat/32", measure.AtLeast, 1.3, "/s", measure.Value, 0},
		{"Mounts, 1 client", "mounts/1", measure.AtLeast, 1.2, "/s", measure.Value, 0},
		{"Mounts, 32 clients", "mounts/32", measure.AtLeast, 1.3, "/s", measure.Value, 0},
		{"List of " + held + " snapshots", "list", measure.AtLeast, 2, "/s", measure.Value, 1},
		{"p99 of Prepare, 8 clients", "prepare/8", measure.AtMost, 1.0 / 3, " ms", measure.P99ms, 2},
		{"start to ready with " + held + " snapshots", "start", measure.Below, 100, " ms", measure.Value, 1},
		{"private memory after the whole load", "private", measure.Below, 8, " MiB", measure.MiB, 1},
	}
}

func writeReport(o *options, host measure.Facts, res *measure.Results, took time.Duration) error {
	return measure.WritePart(o.out, "lighter-overlay", makeReport(o, host, res, took))
}

func makeReport(o *options, host measure.Facts, res *measure.Results, took time.Duration) []byte {
	var b bytes.Buffer

	fmt.Fprintf(&b, `## lighter-overlay

lighter-overlay beside containerd's own overlay snapshotter, which a small Go program
(`+"`bench/overlay/reference`"+`: containerd's `+"`contrib/snapshotservice`"+`, asynchronous removal as in containerd's
plugin) serves as a proxy plugin. Made by

    %s

on %s, in %v (alternated rounds: %d, each case %g s). Values are medians over the rounds;
the range behind a ratio is that of the single rounds.

`, o.command, time.Now().UTC().Format("2006-01-02"), took.Round(time.Second),
		o.rounds, o.seconds)

	measure.WriteTargets(&b, serverNames, rows(o), res)

	fmt.Fprint(&b, `
Further figures, of the same runs: latency and the server's own CPU time for each operation (a chain's
operation is a Prepare and a Commit, a loop's a Prepare and a Remove).

`)
	measure.WriteLatencies(&b, serverNames, []string{"chain/1", "chain/8", "chain/32", "loop/1", "loop/8", "loop/32",
		"stat/1", "stat/32", "mounts/1", "mounts/32", "prepare/8"}, res)
	fmt.Fprintln(&b)
	measure.WriteFigures(&b, serverNames, []measure.Row{
		{"Prepare, 8 clients", casePrepare + "/8", measure.Untold, 0, "/s", measure.Value, 0},
		{"Cleanup after the loop with 32 clients, directories", caseCleanup, measure.Untold, 0, "/s", measure.Value, 0},
		{"resident memory (Rss, with shared libraries) after the whole load", caseRss, measure.Untold, 0, " MiB",
			measure.MiB, 1},
	}, res)

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

`, chainLayers, measure.Thousands(float64(o.snapshots), 0), startTimes)
	append(host, o.facts...).Write(&b)
	return b.Bytes()
}
