// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"

	"lighter.test/measure"
	"lighter.test/snapclient"
)

const (
	baseLayers  = 8
	chainLayers = 16 // of an image, before a client begins the next one
	listTimes   = 10
	startTimes  = 3
	maxSpares   = 64
)

// Names of cases; a case with clients has their number appended.
const (
	caseChain   = "chain"
	caseLoop    = "loop"
	caseStat    = "stat"
	caseMounts  = "mounts"
	casePrepare = "prepare"
	caseCleanup = "cleanup"
	caseList    = "list"
	caseStart   = "start"
	casePrivate = "private"
	caseRss     = "rss"
)

func withClients(name string, clients int) string {
	return fmt.Sprintf("%s/%d", name, clients)
}

// labels are such as a snapshot of a container or layer has.
var labels = snapshots.WithLabels(map[string]string{
	"containerd.io/gc.root": "2023-06-10T00:00:00Z",
})

// runRound starts both servers and takes every case to the one and then to the other, the first in
// turns: what the machine does meanwhile meets both.
func runRound(o *options, round int, res *measure.Results) error {
	ctx := context.Background()
	var servers [2]*server

	order := []int{measure.Ours, measure.Reference}
	if round%2 == 1 {
		order = []int{measure.Reference, measure.Ours}
	}
	defer func() {
		for _, s := range servers {
			if s != nil {
				s.Remove()
			}
		}
	}()
	for _, which := range order {
		s, err := startServer(o, which)
		if err != nil {
			return err
		}
		servers[which] = s
		if err := s.makeBase(ctx); err != nil {
			return err
		}
		warmUp := *o
		warmUp.seconds = o.seconds / 6
		if err := s.loop(ctx, &warmUp, 8, measure.NewResults()); err != nil {
			return err
		}
	}

	type step struct {
		name string
		run  func(s *server) error
	}
	var steps []step
	each := func(name string, clients []int,
		run func(*server, context.Context, *options, int, *measure.Results) error) {
		for _, n := range clients {
			n := n
			steps = append(steps, step{withClients(name, n), func(s *server) error {
				return run(s, ctx, o, n, res)
			}})
		}
	}
	each(caseChain, []int{1, 8, 32}, (*server).chain)
	each(caseLoop, []int{1, 8, 32}, (*server).loop)
	each(caseStat, []int{1, 32}, (*server).stats)
	each(caseMounts, []int{1, 32}, (*server).mountsOf)
	each(casePrepare, []int{8}, (*server).fill)
	steps = append(steps,
		step{caseList, func(s *server) error { return s.list(ctx, res) }},
		step{casePrivate, func(s *server) error { return s.weigh(res) }},
		step{caseStart, func(s *server) error { return s.starts(res) }})

	for _, step := range steps {
		if !strings.HasPrefix(step.name, o.only) {
			continue
		}
		for _, which := range order {
			// What one case leaves to be written back must not be paid by the next.
			if err := measure.SyncDisk(o.dir); err != nil {
				return err
			}
			runtime.GC()
			if err := step.run(servers[which]); err != nil {
				return fmt.Errorf("%s, %s: %w", serverNames[which], step.name, err)
			}
		}
		if got := res.Of[step.name]; got != nil {
			a, b := got[measure.Ours][round], got[measure.Reference][round]
			log.Printf("  %-12s %12.1f %12.1f  p99 %v %v  cpu %v %v", step.name, a.Value,
				b.Value, a.P99.Round(10*time.Microsecond), b.P99.Round(10*time.Microsecond), a.CPU, b.CPU)
		}
	}
	return nil
}

// makeBase commits the layers below the snapshots of loop, stats and mountsOf.
func (s *server) makeBase(ctx context.Context) error {
	parent := ""
	for i := 1; i <= baseLayers; i++ {
		key, name := fmt.Sprintf("base-key-%d", i), fmt.Sprintf("base-%d", i)
		if _, err := s.sn.Prepare(ctx, key, parent, labels); err != nil {
			return err
		}
		if err := s.sn.Commit(ctx, name, key, labels); err != nil {
			return err
		}
		parent = name
	}
	s.held += baseLayers
	return s.expectHeld(ctx)
}

var base = fmt.Sprintf("base-%d", baseLayers)

// expectHeld is the proof that the work was done: the store holds exactly what it should.
func (s *server) expectHeld(ctx context.Context) error {
	all, err := snapclient.List(ctx, s.sn)
	if err != nil {
		return err
	}
	if len(all) != s.held {
		return fmt.Errorf("the store holds %d snapshots and should hold %d", len(all), s.held)
	}
	return nil
}

// chain is what unpacking images does: Prepare on the layer below, Commit, and so on upwards.
func (s *server) chain(ctx context.Context, o *options, clients int, res *measure.Results) error {
	name := func(c, i int) string { return fmt.Sprintf("chain-%d-%d", c, i) }
	got, n, err := s.Drive(ctx, o.seconds, clients, func(ctx context.Context, c, i int) error {
		key, parent := fmt.Sprintf("extract-%d-%d", c, i), ""
		if i%chainLayers > 0 {
			parent = name(c, i-1)
		}
		mounts, err := s.sn.Prepare(ctx, key, parent, labels)
		if err != nil {
			return err
		}
		if err := checkMounts(mounts, i%chainLayers, i); err != nil {
			return err
		}
		return s.sn.Commit(ctx, name(c, i), key, labels)
	})
	if err != nil {
		return err
	}
	res.Add(withClients(caseChain, clients), s.Which, got)

	s.held += n
	if err := s.expectHeld(ctx); err != nil {
		return err
	}
	if err := s.removeAll(ctx, "chain-", 8); err != nil {
		return err
	}
	_, err = s.cleanup(ctx)
	return err
}

// loop is what starting and removing containers does.
func (s *server) loop(ctx context.Context, o *options, clients int, res *measure.Results) error {
	got, n, err := s.Drive(ctx, o.seconds, clients, func(ctx context.Context, c, i int) error {
		key := fmt.Sprintf("container-%d-%d", c, i)
		mounts, err := s.sn.Prepare(ctx, key, base, labels)
		if err != nil {
			return err
		}
		if err := checkMounts(mounts, baseLayers, i); err != nil {
			return err
		}
		return s.sn.Remove(ctx, key)
	})
	if err != nil {
		return err
	}
	res.Add(withClients(caseLoop, clients), s.Which, got)
	if err := s.expectHeld(ctx); err != nil {
		return err
	}
	took, err := s.cleanup(ctx)
	if err != nil {
		return err
	}
	if clients == 32 {
		res.Add(caseCleanup, s.Which, measure.Sample{Value: float64(n) / took.Seconds()})
	}
	return nil
}

// few makes snapshots for the cases that only read, and removes them when done.
func (s *server) few(ctx context.Context, run func(keys []string) error) error {
	var keys []string
	for i := 0; i < 100; i++ {
		key := fmt.Sprintf("few-%d", i)
		if _, err := s.sn.Prepare(ctx, key, base, labels); err != nil {
			return err
		}
		keys = append(keys, key)
	}
	if err := run(keys); err != nil {
		return err
	}
	for _, key := range keys {
		if err := s.sn.Remove(ctx, key); err != nil {
			return err
		}
	}
	_, err := s.cleanup(ctx)
	return err
}

func (s *server) stats(ctx context.Context, o *options, clients int, res *measure.Results) error {
	return s.few(ctx, func(keys []string) error {
		got, _, err := s.Drive(ctx, o.seconds, clients, func(ctx context.Context, c, i int) error {
			key := keys[(c+i)%len(keys)]
			info, err := s.sn.Stat(ctx, key)
			if err != nil {
				return err
			}
			if info.Name != key || info.Parent != base || info.Kind != snapshots.KindActive ||
				len(info.Labels) != 1 {
				return fmt.Errorf("Stat of %q answered %+v", key, info)
			}
			return nil
		})
		if err == nil {
			res.Add(withClients(caseStat, clients), s.Which, got)
		}
		return err
	})
}

func (s *server) mountsOf(ctx context.Context, o *options, clients int, res *measure.Results) error {
	return s.few(ctx, func(keys []string) error {
		got, _, err := s.Drive(ctx, o.seconds, clients, func(ctx context.Context, c, i int) error {
			mounts, err := s.sn.Mounts(ctx, keys[(c+i)%len(keys)])
			if err != nil {
				return err
			}
			return checkMounts(mounts, baseLayers, i)
		})
		if err == nil {
			res.Add(withClients(caseMounts, clients), s.Which, got)
		}
		return err
	})
}

// fill Prepares containers until the store holds the wanted number, and measures each Prepare.
func (s *server) fill(ctx context.Context, o *options, clients int, res *measure.Results) error {
	n := o.snapshots - s.held
	got, err := s.Share(ctx, n, clients, func(ctx context.Context, _, i int) error {
		mounts, err := s.sn.Prepare(ctx, fmt.Sprintf("held-%d", i), base, labels)
		if err != nil {
			return err
		}
		return checkMounts(mounts, baseLayers, i)
	})
	if err != nil {
		return err
	}
	s.held += n
	if err := s.expectHeld(ctx); err != nil {
		return err
	}
	if err := s.expectDirectories(o.snapshots); err != nil {
		return err
	}
	res.Add(withClients(casePrepare, clients), s.Which, got)
	return nil
}

func (s *server) list(ctx context.Context, res *measure.Results) error {
	var took []time.Duration
	for i := 0; i < listTimes; i++ {
		n := 0
		from := time.Now()
		err := s.sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			n++
			return nil
		})
		took = append(took, time.Since(from))
		if err != nil {
			return err
		}
		if n != s.held {
			return fmt.Errorf("listed %d snapshots of %d", n, s.held)
		}
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	mid := measure.Percentile(took, 0.5)
	res.Add(caseList, s.Which, measure.Sample{Value: 1 / mid.Seconds(), P50: mid, P99: took[len(took)-1]})
	return nil
}

func (s *server) weigh(res *measure.Results) error {
	private, rss, err := s.Memory()
	if err != nil {
		return err
	}
	res.Add(casePrivate, s.Which, measure.Sample{Value: private})
	res.Add(caseRss, s.Which, measure.Sample{Value: rss})
	return nil
}

func (s *server) starts(res *measure.Results) error {
	if err := s.Stop(); err != nil {
		return err
	}
	var took []float64
	for i := 0; i < startTimes; i++ {
		t, err := s.timeStart(base)
		if err != nil {
			return err
		}
		took = append(took, t.Seconds()*1000)
	}
	res.Add(caseStart, s.Which, measure.Sample{Value: measure.Median(took)})
	return nil
}

// checkMounts looks at what a snapshot with that many layers below it must get; for some of them also
// whether its directory is there.
func checkMounts(mounts []mount.Mount, layers, i int) error {
	if len(mounts) != 1 {
		return fmt.Errorf("%d mounts: %v", len(mounts), mounts)
	}
	upper := mounts[0].Source
	if layers > 0 {
		lower := ""
		for _, option := range mounts[0].Options {
			if strings.HasPrefix(option, "upperdir=") {
				upper = strings.TrimPrefix(option, "upperdir=")
			}
			if strings.HasPrefix(option, "lowerdir=") {
				lower = strings.TrimPrefix(option, "lowerdir=")
			}
		}
		if mounts[0].Type != "overlay" || len(strings.Split(lower, ":")) != layers {
			return fmt.Errorf("not a mount of %d layers: %v", layers, mounts)
		}
	} else if mounts[0].Type != "bind" {
		return fmt.Errorf("not a bind mount: %v", mounts)
	}
	if i%256 == 0 {
		if _, err := os.Stat(upper); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes the snapshots of a prefix, children first, with some clients in parallel: each
// generation of leaves at once.
func (s *server) removeAll(ctx context.Context, prefix string, clients int) error {
	all, err := snapclient.List(ctx, s.sn)
	if err != nil {
		return err
	}
	children := map[string]int{}
	for _, info := range all {
		children[info.Parent]++
	}
	var leaves []string
	for name := range all {
		if children[name] == 0 && strings.HasPrefix(name, prefix) {
			leaves = append(leaves, name)
		}
	}
	for len(leaves) > 0 {
		var (
			wait sync.WaitGroup
			errs = make([]error, clients)
			next []string
		)
		for c := 0; c < clients; c++ {
			wait.Add(1)
			go func(c int) {
				defer wait.Done()
				for i := c; i < len(leaves) && errs[c] == nil; i += clients {
					errs[c] = s.sn.Remove(ctx, leaves[i])
				}
			}(c)
		}
		wait.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		s.held -= len(leaves)
		for _, name := range leaves {
			parent := all[name].Parent
			if children[parent]--; children[parent] == 0 && strings.HasPrefix(parent, prefix) {
				next = append(next, parent)
			}
		}
		leaves = next
	}
	return s.expectHeld(ctx)
}

// cleanup has the directories of removed snapshots deleted, as containerd does after collecting
// garbage, and tells how long it took.
func (s *server) cleanup(ctx context.Context) (time.Duration, error) {
	from := time.Now()
	if err := s.sn.(snapshots.Cleaner).Cleanup(ctx); err != nil {
		return 0, err
	}
	took := time.Since(from)
	return took, s.expectDirectories(s.held)
}

// expectDirectories looks at the disk: a directory for each snapshot, and no more than the spares.
func (s *server) expectDirectories(want int) error {
	dir, err := os.Open(filepath.Join(s.Root, "snapshots"))
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	if len(names) < want || len(names) > want+maxSpares {
		return fmt.Errorf("%d directories for %d snapshots", len(names), want)
	}
	return nil
}
