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
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	"golang.org/x/sys/unix"

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

// op is one operation of one client; i counts that client's operations.
type op func(ctx context.Context, client, i int) error

// runRound starts both servers and takes every case to the one and then to the other, the first in
// turns: what the machine does meanwhile meets both.
func runRound(o *options, round int, res *results) error {
	ctx := context.Background()
	var servers [2]*server

	order := []int{ours, reference}
	if round%2 == 1 {
		order = []int{reference, ours}
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
		if err := s.loop(ctx, &warmUp, 8, newResults()); err != nil {
			return err
		}
	}

	type step struct {
		name string
		run  func(s *server) error
	}
	var steps []step
	each := func(name string, clients []int,
		run func(*server, context.Context, *options, int, *results) error) {
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
			if err := syncDisk(o.dir); err != nil {
				return err
			}
			runtime.GC()
			if err := step.run(servers[which]); err != nil {
				return fmt.Errorf("%s, %s: %w", serverNames[which], step.name, err)
			}
		}
		if got := res.of[step.name]; got != nil {
			a, b := got[ours][round], got[reference][round]
			log.Printf("  %-12s %12.1f %12.1f  p99 %v %v  cpu %v %v", step.name, a.value,
				b.value, a.p99.Round(10*time.Microsecond), b.p99.Round(10*time.Microsecond), a.cpu, b.cpu)
		}
	}
	return nil
}

// syncDisk writes back what the measured disk, and no other, has to.
func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
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

// drive has clients repeat op until the time is over, and tells how it went.
func (s *server) drive(ctx context.Context, seconds float64, clients int, do op) (sample, int, error) {
	var (
		wait    sync.WaitGroup
		stop    int32
		mu      sync.Mutex
		failure error
		took    = make([][]time.Duration, clients)
	)
	cpu, err := s.cpu()
	if err != nil {
		return sample{}, 0, err
	}
	begin := time.Now()
	timer := time.AfterFunc(time.Duration(seconds*float64(time.Second)), func() {
		atomic.StoreInt32(&stop, 1)
	})
	defer timer.Stop()
	for c := 0; c < clients; c++ {
		wait.Add(1)
		go func(c int) {
			defer wait.Done()
			mine := make([]time.Duration, 0, 1<<14)
			for i := 0; atomic.LoadInt32(&stop) == 0; i++ {
				from := time.Now()
				if err := do(ctx, c, i); err != nil {
					mu.Lock()
					failure = err
					mu.Unlock()
					atomic.StoreInt32(&stop, 1)
					return
				}
				mine = append(mine, time.Since(from))
			}
			took[c] = mine
		}(c)
	}
	wait.Wait()
	elapsed := time.Since(begin)
	if failure != nil {
		return sample{}, 0, failure
	}
	after, err := s.cpu()
	if err != nil {
		return sample{}, 0, err
	}
	return summarise(took, elapsed, after-cpu)
}

func summarise(took [][]time.Duration, elapsed, cpu time.Duration) (sample, int, error) {
	var all []time.Duration
	for _, mine := range took {
		all = append(all, mine...)
	}
	if len(all) == 0 {
		return sample{}, 0, fmt.Errorf("not one operation came to its end")
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return sample{
		value: float64(len(all)) / elapsed.Seconds(),
		p50:   percentile(all, 0.50),
		p99:   percentile(all, 0.99),
		cpu:   cpu / time.Duration(len(all)),
	}, len(all), nil
}

// chain is what unpacking images does: Prepare on the layer below, Commit, and so on upwards.
func (s *server) chain(ctx context.Context, o *options, clients int, res *results) error {
	name := func(c, i int) string { return fmt.Sprintf("chain-%d-%d", c, i) }
	got, n, err := s.drive(ctx, o.seconds, clients, func(ctx context.Context, c, i int) error {
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
	res.add(withClients(caseChain, clients), s.which, got)

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
func (s *server) loop(ctx context.Context, o *options, clients int, res *results) error {
	got, n, err := s.drive(ctx, o.seconds, clients, func(ctx context.Context, c, i int) error {
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
	res.add(withClients(caseLoop, clients), s.which, got)
	if err := s.expectHeld(ctx); err != nil {
		return err
	}
	took, err := s.cleanup(ctx)
	if err != nil {
		return err
	}
	if clients == 32 {
		res.add(caseCleanup, s.which, sample{value: float64(n) / took.Seconds()})
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

func (s *server) stats(ctx context.Context, o *options, clients int, res *results) error {
	return s.few(ctx, func(keys []string) error {
		got, _, err := s.drive(ctx, o.seconds, clients, func(ctx context.Context, c, i int) error {
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
			res.add(withClients(caseStat, clients), s.which, got)
		}
		return err
	})
}

func (s *server) mountsOf(ctx context.Context, o *options, clients int, res *results) error {
	return s.few(ctx, func(keys []string) error {
		got, _, err := s.drive(ctx, o.seconds, clients, func(ctx context.Context, c, i int) error {
			mounts, err := s.sn.Mounts(ctx, keys[(c+i)%len(keys)])
			if err != nil {
				return err
			}
			return checkMounts(mounts, baseLayers, i)
		})
		if err == nil {
			res.add(withClients(caseMounts, clients), s.which, got)
		}
		return err
	})
}

// fill Prepares containers until the store holds the wanted number, and measures each Prepare.
func (s *server) fill(ctx context.Context, o *options, clients int, res *results) error {
	var (
		next    = int64(s.held) - 1
		wait    sync.WaitGroup
		mu      sync.Mutex
		failure error
		took    = make([][]time.Duration, clients)
	)
	cpu, err := s.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	for c := 0; c < clients; c++ {
		wait.Add(1)
		go func(c int) {
			defer wait.Done()
			for i := 0; ; i++ {
				n := atomic.AddInt64(&next, 1)
				if n >= int64(o.snapshots) {
					return
				}
				from := time.Now()
				mounts, err := s.sn.Prepare(ctx, fmt.Sprintf("held-%d", n), base, labels)
				took[c] = append(took[c], time.Since(from))
				if err == nil {
					err = checkMounts(mounts, baseLayers, i)
				}
				if err != nil {
					mu.Lock()
					failure = err
					mu.Unlock()
					return
				}
			}
		}(c)
	}
	wait.Wait()
	elapsed := time.Since(begin)
	if failure != nil {
		return failure
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	got, n, err := summarise(took, elapsed, after-cpu)
	if err != nil {
		return err
	}
	s.held += n
	if s.held != o.snapshots {
		return fmt.Errorf("made %d snapshots, not %d", s.held, o.snapshots)
	}
	if err := s.expectHeld(ctx); err != nil {
		return err
	}
	if err := s.expectDirectories(o.snapshots); err != nil {
		return err
	}
	res.add(withClients(casePrepare, clients), s.which, got)
	return nil
}

func (s *server) list(ctx context.Context, res *results) error {
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
	mid := percentile(took, 0.5)
	res.add(caseList, s.which, sample{value: 1 / mid.Seconds(), p50: mid, p99: took[len(took)-1]})
	return nil
}

func (s *server) weigh(res *results) error {
	private, rss, err := s.memory()
	if err != nil {
		return err
	}
	res.add(casePrivate, s.which, sample{value: private})
	res.add(caseRss, s.which, sample{value: rss})
	return nil
}

func (s *server) starts(res *results) error {
	if err := s.stop(); err != nil {
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
	res.add(caseStart, s.which, sample{value: median(took)})
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
