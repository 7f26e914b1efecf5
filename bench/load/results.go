// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sort"
	"time"
)

// The two servers; also the index of what belongs to them.
const (
	ours = iota
	reference
)

var serverNames = [2]string{"lighter-overlay", "containerd's overlay"}

// sample is what one case gave in one round.
type sample struct {
	value float64 // in the case's unit
	p50   time.Duration
	p99   time.Duration
	cpu   time.Duration // of the server, per operation
}

// results holds the samples of every case, a slice over the rounds for each server.
type results struct {
	of map[string]*[2][]sample
}

func newResults() *results {
	return &results{of: map[string]*[2][]sample{}}
}

func (r *results) add(name string, server int, s sample) {
	if r.of[name] == nil {
		r.of[name] = &[2][]sample{}
	}
	r.of[name][server] = append(r.of[name][server], s)
}

func values(samples []sample, get func(sample) float64) []float64 {
	all := make([]float64, len(samples))
	for i, s := range samples {
		all[i] = get(s)
	}
	return all
}

func median(all []float64) float64 {
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

// percentile expects a sorted slice.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(p*float64(len(sorted)-1))]
}
