// SPDX-License-Identifier: Apache-2.0

// Package measure is what the benchmarks have in common: two servers that are driven in turns, samples over
// rounds, targets, and a report in Markdown. It is for GOPATH builds.
package measure

import (
	"fmt"
	"sort"
	"time"
)

// The two servers; also the index of what belongs to them.
const (
	Ours = iota
	Reference
)

// Sample is what one case gave in one round.
type Sample struct {
	Value float64 // in the case's unit
	P50   time.Duration
	P99   time.Duration
	CPU   time.Duration // of the server, per operation
	// Shares of all the processors' time: the server's, the client's, and what nobody used.
	Server, Client, Idle float64
}

// Results holds the samples of every case, a slice over the rounds for each server.
type Results struct {
	Of map[string]*[2][]Sample
}

func NewResults() *Results {
	return &Results{Of: map[string]*[2][]Sample{}}
}

func (r *Results) Add(name string, server int, s Sample) {
	if r.Of[name] == nil {
		r.Of[name] = &[2][]Sample{}
	}
	r.Of[name][server] = append(r.Of[name][server], s)
}

// Median is that of one server's samples of one case; 0 when there are none.
func (r *Results) Median(name string, server int, get func(Sample) float64) float64 {
	if r.Of[name] == nil {
		return 0
	}
	return Median(Values(r.Of[name][server], get))
}

// Summarise makes a sample of how long each operation of each client took.
func Summarise(took [][]time.Duration, elapsed, cpu time.Duration) (Sample, int, error) {
	var all []time.Duration
	for _, mine := range took {
		all = append(all, mine...)
	}
	if len(all) == 0 {
		return Sample{}, 0, fmt.Errorf("not one operation came to its end")
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return Sample{
		Value: float64(len(all)) / elapsed.Seconds(),
		P50:   Percentile(all, 0.50),
		P99:   Percentile(all, 0.99),
		CPU:   cpu / time.Duration(len(all)),
	}, len(all), nil
}

func Values(samples []Sample, get func(Sample) float64) []float64 {
	all := make([]float64, len(samples))
	for i, s := range samples {
		all[i] = get(s)
	}
	return all
}

func Median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := append([]float64(nil), all...)
	sort.Float64s(sorted)
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// Percentile expects a sorted slice.
func Percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(p*float64(len(sorted)-1))]
}
