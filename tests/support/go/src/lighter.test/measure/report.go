// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Facts are lines of a report that its caller knows: "name=value".
type Facts []string

func (f *Facts) String() string { return strings.Join(*f, ", ") }

func (f *Facts) Set(s string) error {
	if !strings.Contains(s, "=") {
		return fmt.Errorf("want NAME=VALUE")
	}
	*f = append(*f, s)
	return nil
}

// Write puts them down as a list.
func (f Facts) Write(b *bytes.Buffer) {
	for _, fact := range f {
		at := strings.IndexByte(fact, '=')
		fmt.Fprintf(b, "- %s: %s\n", fact[:at], fact[at+1:])
	}
}

// Rule is how a row's two values are held against its target.
type Rule int

const (
	AtLeast Rule = iota // ours / reference is at least the target
	AtMost              // ours / reference is at most the target
	Below               // ours is below the target, whatever the reference's is
	Above               // ours is the target or more, whatever the reference's is
	Untold              // there is no target
)

// Row is one line of the table of targets.
type Row struct {
	Title  string
	Name   string // of the case
	Rule   Rule
	Target float64
	Unit   string
	Get    func(Sample) float64
	Digits int
}

func Value(s Sample) float64 { return s.Value }

func P50ms(s Sample) float64 { return s.P50.Seconds() * 1000 }

func P99ms(s Sample) float64 { return s.P99.Seconds() * 1000 }

func CPUus(s Sample) float64 { return s.CPU.Seconds() * 1e6 }

func MiB(s Sample) float64 { return s.Value / (1 << 20) }

// verdict holds a row's medians against its target.
func (r Row) verdict(got [2]float64) (target string, met bool) {
	ratio := got[Ours] / got[Reference]
	switch r.Rule {
	case AtLeast:
		return fmt.Sprintf("at least %gx", r.Target), ratio >= r.Target
	case AtMost:
		return fmt.Sprintf("at most %.2fx", r.Target), ratio <= r.Target
	case Above:
		return fmt.Sprintf("at least %g%s", r.Target, r.Unit), got[Ours] >= r.Target
	default:
		return fmt.Sprintf("under %g%s", r.Target, r.Unit), got[Ours] < r.Target
	}
}

func (r Row) text(v float64) string { return Thousands(v, r.Digits) + r.Unit }

// ratios are the median over the rounds' values, and the range of the single rounds' ratios.
func (r Row) ratios(res *Results) (got [2]float64, low, high float64) {
	both := res.Of[r.Name]
	for i := range both[Ours] {
		if i >= len(both[Reference]) {
			break
		}
		ratio := r.Get(both[Ours][i]) / r.Get(both[Reference][i])
		if i == 0 || ratio < low {
			low = ratio
		}
		if i == 0 || ratio > high {
			high = ratio
		}
	}
	for which := range got {
		got[which] = Median(Values(both[which], r.Get))
	}
	return got, low, high
}

// WriteTargets makes the table of targets, and tells how many were missed. A case that only we were measured
// in has no ratio.
func WriteTargets(b *bytes.Buffer, names [2]string, rows []Row, res *Results) {
	fmt.Fprintf(b, "| | target | %s | %s | ratio | met? |\n|---|---|---:|---:|---:|---|\n", names[Ours],
		names[Reference])
	missed := 0
	for _, r := range rows {
		got, low, high := r.ratios(res)
		target, met := r.verdict(got)
		answer := "yes"
		if !met {
			answer = "**no**"
			missed++
		}
		if got[Reference] == 0 {
			fmt.Fprintf(b, "| %s | %s | %s | | | %s |\n", r.Title, target, r.text(got[Ours]), answer)
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %.2fx (%.2f to %.2f) | %s |\n", r.Title, target,
			r.text(got[Ours]), r.text(got[Reference]), got[Ours]/got[Reference], low, high, answer)
	}
	if missed > 0 {
		fmt.Fprintf(b, "\n%d of %d targets are not met.\n", missed, len(rows))
	} else {
		fmt.Fprintf(b, "\nAll %d targets are met.\n", len(rows))
	}
}

// WriteLatencies makes the table of latency and CPU time of the cases named.
func WriteLatencies(b *bytes.Buffer, names [2]string, cases []string, res *Results) {
	fmt.Fprintf(b, "| | p50, ms | p99, ms | CPU, µs | p50, ms | p99, ms | CPU, µs |\n"+
		"|---|---:|---:|---:|---:|---:|---:|\n| | %s | | | %s | | |\n", names[Ours], names[Reference])
	for _, name := range cases {
		fmt.Fprintf(b, "| %s |", name)
		for which := range names {
			fmt.Fprintf(b, " %.3f | %.3f | %.0f |", res.Median(name, which, P50ms),
				res.Median(name, which, P99ms), res.Median(name, which, CPUus))
		}
		fmt.Fprintln(b)
	}
}

// WriteShares makes the table of who used the processors in the cases named, when ours was measured: what is left is the
// kernel's own threads, and other processes.
func WriteShares(b *bytes.Buffer, names [2]string, cases []string, res *Results) {
	fmt.Fprintf(b, "| | %s | client | idle |\n|---|---:|---:|---:|\n", names[Ours])
	for _, name := range cases {
		fmt.Fprintf(b, "| %s | %.0f %% | %.0f %% | %.0f %% |\n", name,
			100*res.Median(name, Ours, func(s Sample) float64 { return s.Server }),
			100*res.Median(name, Ours, func(s Sample) float64 { return s.Client }),
			100*res.Median(name, Ours, func(s Sample) float64 { return s.Idle }))
	}
}

// WriteFigures makes a table of what has no target.
func WriteFigures(b *bytes.Buffer, names [2]string, rows []Row, res *Results) {
	fmt.Fprintf(b, "| | %s | %s |\n|---|---:|---:|\n", names[Ours], names[Reference])
	for _, r := range rows {
		fmt.Fprintf(b, "| %s |", r.Title)
		for which := range names {
			fmt.Fprintf(b, " %s |", r.text(res.Median(r.Name, which, r.Get)))
		}
		fmt.Fprintln(b)
	}
}

// WritePart replaces the part of that name in a file by text, and keeps whatever else stands there; without a
// file name it goes to standard output.
func WritePart(file, name string, text []byte) error {
	if file == "" {
		_, err := os.Stdout.Write(text)
		return err
	}
	begin := []byte(fmt.Sprintf("<!-- %s: made by scripts/bench; what stands outside of such parts is written "+
		"by hand, and kept -->\n", name))
	end := []byte(fmt.Sprintf("<!-- end of %s -->\n", name))
	old, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	before, after := old, []byte(nil)
	if at := bytes.Index(old, begin); at >= 0 {
		before = old[:at]
		to := bytes.Index(old[at:], end)
		if to < 0 {
			return fmt.Errorf("%s: there is no %q", file, end)
		}
		after = old[at+to+len(end):]
	} else if len(old) > 0 {
		before = append(append([]byte(nil), old...), '\n')
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, bytes.Join([][]byte{before, begin, text, end, after}, nil), 0o644)
}

// Thousands writes 12345.6 as 12,346, or with digits behind the point.
func Thousands(v float64, digits int) string {
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
