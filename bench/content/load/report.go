// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"time"

	"lighter.test/measure"
)

func rate(size float64) func(measure.Sample) float64 {
	return func(s measure.Sample) float64 { return s.Value * size / mib }
}

// rows are the figures that the project has set itself.
func rows(o *options) []measure.Row {
	size := sizesOf(o)
	large := float64(size.largeBytes)
	return []measure.Row{
		{fmt.Sprintf("ingest %d x 16 KiB, 1 client", size.small), ingestSmall + "/1", measure.AtLeast, 2, "/s",
			measure.Value, 0},
		{fmt.Sprintf("ingest %d x 16 KiB, 8 clients", size.small), ingestSmall + "/8", measure.AtLeast, 5, "/s",
			measure.Value, 0},
		{fmt.Sprintf("ingest %d x 1 MiB, 1 client", size.mid), ingestMid + "/1", measure.AtLeast, 3, " MiB/s",
			rate(mib), 0},
		{fmt.Sprintf("ingest %d x 1 MiB, 8 clients", size.mid), ingestMid + "/8", measure.AtLeast, 3, " MiB/s",
			rate(mib), 0},
		{fmt.Sprintf("ingest %d x %d MiB, 1 client", size.large, size.largeBytes/mib), ingestLarge + "/1",
			measure.AtLeast, 3, " MiB/s", rate(large), 0},
		{fmt.Sprintf("ingest %d x %d MiB, 4 clients", size.large, size.largeBytes/mib), ingestLarge + "/4",
			measure.AtLeast, 3, " MiB/s", rate(large), 0},
		{"time of the same over that of sha256 alone on one core, 1 client", overHash[1], measure.Below, 1.5, "x",
			measure.Value, 2},
		{"the same, 4 clients", overHash[4], measure.Below, 1.5, "x", measure.Value, 2},
		{"fetch of 1 MiB", fetchMid, measure.AtLeast, 1.3, " MiB/s", rate(mib), 0},
		{fmt.Sprintf("fetch of %d MiB", size.largeBytes/mib), fetchLarge, measure.AtLeast, 1.3, " MiB/s",
			rate(large), 0},
		{"the same with a client in C (bench/content/content_client.c)", cClient, measure.Above, 1024, " MiB/s",
			rate(1), 0},
		{"32 KiB sequential reads", walkLarge, measure.AtLeast, 1.5, " MiB/s", rate(32 * kib), 0},
		{"server CPU for a GiB written", caseWrite, measure.AtMost, 1.0 / 3, " s", measure.Value, 2},
		{"server CPU for a GiB read", caseRead, measure.AtMost, 1.0 / 2, " s", measure.Value, 2},
		{fmt.Sprintf("private memory, the most while %d clients write %d MiB each", size.privateClients,
			size.largeBytes/4/mib), casePrivate, measure.Below, 24, " MiB", measure.MiB, 1},
	}
}

func writeReport(o *options, host measure.Facts, res *measure.Results, took time.Duration) error {
	return measure.WritePart(o.out, "lighter-content", makeReport(o, host, res, took))
}

func makeReport(o *options, host measure.Facts, res *measure.Results, took time.Duration) []byte {
	var b bytes.Buffer
	size := sizesOf(o)

	fmt.Fprintf(&b, `## lighter-content

lighter-content beside containerd's own content store, which a small Go program (`+"`bench/content/reference`"+`:
containerd's `+"`content/local`"+` behind its `+"`contentserver`"+`, without labels, as containerd's plugin makes it)
serves as a proxy plugin. Made by

    %s

on %s, in %v (alternated rounds: %d). Values are medians over the rounds; the range behind a ratio is that of the
single rounds.

`, o.command, time.Now().UTC().Format("2006-01-02"), took.Round(time.Second), o.rounds)
	measure.WriteTargets(&b, serverNames, rows(o), res)

	fmt.Fprint(&b, `
Further figures, of the same runs: latency and the server's own CPU time for each blob, or for each call of the 32 KiB
reads.

`)
	cases := []string{ingestSmall + "/1", ingestSmall + "/8", ingestMid + "/1", ingestMid + "/8",
		ingestLarge + "/1", ingestLarge + "/4", fetchMid, fetchLarge, walkLarge}
	measure.WriteLatencies(&b, serverNames, cases, res)
	fmt.Fprint(&b, `
Who used the processors meanwhile, of all of their time (with lighter-content; what is missing to 100 is the kernel's
threads for disk and journal, and other processes):

`)
	measure.WriteShares(&b, serverNames, cases, res)
	fmt.Fprintf(&b, `
| | |
|---|---:|
| sha256 alone, one core | %s MiB/s |
| resident memory (Rss, with shared libraries), the most while %d clients write | %s MiB, containerd's store %s MiB |
`, measure.Thousands(res.Median(hashAlone, measure.Ours, measure.MiB), 0), size.privateClients,
		measure.Thousands(res.Median(caseRss, measure.Ours, measure.MiB), 1),
		measure.Thousands(res.Median(caseRss, measure.Reference, measure.MiB), 1))

	fmt.Fprintf(&b, `
How it is measured:

- One Go client for both, containerd 1.6's proxy content store; all clients share one connection, as those of a
  containerd do, and run on the same machine as the server. With few cores much of the machine's time is the client's,
  which pulls ratios towards 1.
- Both servers run throughout a round, each on a fresh root on the same disk; each case goes to the one and then to the
  other, and who is first changes with every round. Before each turn the disk is synced.
- An ingest is what a pull does: containerd's own WriteBlob, from a reader, with size and digest known: a STAT, WRITEs of
  1 MiB at most, each waiting for its answer, and a COMMIT. Blobs are random bytes. After each case all are read back and
  compared, then deleted, which is not timed.
- A fetch is one Read call for a whole blob, out of the page cache. The 32 KiB reads are a call each, one after the other
  through the blob, as the walking differ, import and push make them.
- Server CPU is that of the ingests with one client, and of the large fetches. Memory is Private_Dirty of smaps_rollup,
  looked at every 10 ms, and the most of it.
- sha256 alone is OpenSSL's, over memory that is in the processor's cache.

Durability: a COMMIT that has been answered survives a power cut. containerd's store syncs the blob's file, and renames it
after that, without a sync of the directory: there it promises less than lighter-content. Neither has any unsafe option
set.

What it was measured on:

`)
	append(host, o.facts...).Write(&b)
	return b.Bytes()
}
