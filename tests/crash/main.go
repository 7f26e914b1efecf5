// SPDX-License-Identifier: Apache-2.0

// Command crash kills a snapshotter with SIGKILL while clients work with it, starts it again on the
// same root, and compares what it then says with a model of every call that was answered.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"./daemon"
	"./kit"
	api "github.com/containerd/containerd/api/services/snapshots/v1"
)

const maxSpares = 64

var (
	exe     = flag.String("exe", "", "snapshotter to test")
	kills   = flag.Int("kills", 300, "how often to kill at random")
	clients = flag.Int("clients", 6, "concurrent clients")
	seed    = flag.Int64("seed", 0, "seed of all random choices; 0: from the clock")
	tmp     = flag.String("tmp", "", "where to make the temporary directory")
	keep    = flag.Bool("keep", false, "keep the root of a failed test")
	verbose = flag.Bool("v", false, "say what happens")
)

var tally kit.Tally

// diskUsage is what Usage of a directory must be: blocks and inodes, each once, the root counted.
func diskUsage(dir string) (size, inodes int64) {
	type id struct{ dev, ino uint64 }
	seen := map[id]bool{}
	filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return nil
		}
		st := fi.Sys().(*syscall.Stat_t)
		k := id{uint64(st.Dev), st.Ino}
		if !seen[k] {
			seen[k] = true
			inodes++
			size += st.Blocks * 512
		}
		return nil
	})
	return size, inodes
}

type row struct {
	key  string
	kind int
}

// database reads the rows of a database that may be in use.
func database(root string, integrity bool) (map[string]row, error) {
	out, err := kit.Integrity(*tmp, root, "SELECT id, kind, hex(key) FROM snapshots;", integrity)
	if err != nil {
		return nil, err
	}
	rows := map[string]row{}
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		if l == "" {
			continue
		}
		f := strings.Split(l, "|")
		if len(f) != 3 {
			return nil, fmt.Errorf("sqlite3: %q", l)
		}
		kind, _ := strconv.Atoi(f[1])
		key := make([]byte, len(f[2])/2)
		fmt.Sscanf(f[2], "%x", &key)
		rows[f[0]] = row{string(key), kind}
	}
	return rows, nil
}

// strays lists what lies in snapshots/ and work/ without a row and is not an empty spare, and counts the spares.
func strays(root string, rows map[string]row) (bad []string, spares int, err error) {
	unnamed := map[string]bool{}
	for _, part := range []string{"snapshots", "work"} {
		dir := filepath.Join(root, part)
		e, err := os.ReadDir(dir)
		if err != nil {
			return nil, 0, err
		}
		for _, d := range e {
			if _, ok := rows[d.Name()]; ok {
				continue
			}
			in, err := os.ReadDir(filepath.Join(dir, d.Name()))
			_, number := strconv.ParseUint(d.Name(), 10, 63)
			if number != nil || err != nil || len(in) != 0 {
				bad = append(bad, filepath.Join(part, d.Name()))
				continue
			}
			unnamed[d.Name()] = true
		}
	}
	return bad, len(unnamed), nil
}

// verify compares a daemon that has just started with the model, and learns how the calls that were
// in flight have ended.
func verify(w *world, d *daemon.Daemon, integrity bool) error {
	conn, err := d.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	a := api.NewSnapshotsClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), kit.Hung)
	defer cancel()
	seen, err := listAll(ctx, a)
	if err != nil {
		return fmt.Errorf("List: %v", err)
	}
	w.settle(seen)
	w.compare(seen)
	if f := w.failed(); len(f) > 0 {
		return errors.New(strings.Join(f, "\n"))
	}
	var keys []string
	for k := range w.snaps {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		s := w.snaps[k]
		r, err := a.Stat(ctx, &api.StatSnapshotRequest{Key: k})
		if err != nil {
			return fmt.Errorf("Stat %q: %v", k, err)
		}
		if diff := s.differs(&r.Info); diff != "" {
			return fmt.Errorf("Stat %q: %s: %s, listed as %v", k, diff, showInfo(&r.Info), s)
		}
		u, err := a.Usage(ctx, &api.UsageRequest{Key: k})
		if err != nil {
			return fmt.Errorf("Usage %q: %v", k, err)
		}
		switch s.kind {
		case api.KindCommitted:
			if s.usage != nil && !sameUsage(s.usage, u) {
				return fmt.Errorf("Usage of committed %q was %v, is %v", k, s.usage, u)
			}
			s.usage = u
			continue
		}
		m, err := a.Mounts(ctx, &api.MountsRequest{Key: k})
		if err != nil {
			return fmt.Errorf("Mounts %q: %v", k, err)
		}
		got := flatMounts(m.Mounts)
		if s.mounts != nil && strings.Join(got, "\n") != strings.Join(s.mounts, "\n") {
			return fmt.Errorf("Mounts %q: %v, before the kill %v", k, got, s.mounts)
		}
		p, err := placeOf(m.Mounts)
		if err != nil {
			return fmt.Errorf("Mounts %q: %v", k, err)
		}
		s.mounts = got
		if s.kind == api.KindActive {
			s.dir = p.upper
		}
		for _, dir := range append([]string{p.upper, p.work}, p.lower...) {
			if dir == "" {
				continue
			}
			if st, err := os.Stat(dir); err != nil || !st.IsDir() {
				return fmt.Errorf("Mounts %q name %s, but: %v", k, dir, err)
			}
		}
		if s.kind == api.KindActive {
			if size, inodes := diskUsage(s.dir); size != u.Size_ || inodes != u.Inodes {
				return fmt.Errorf("Usage of active %q: %v, on disk %d bytes, %d inodes", k, u, size, inodes)
			}
		}
	}
	for _, k := range keys {
		s := w.snaps[k]
		if s.kind == api.KindView || s.dir == "" {
			continue
		}
		e, err := os.ReadDir(s.dir)
		if err != nil {
			return fmt.Errorf("%v %q: %v", s.kind, k, err)
		}
		if len(e) != len(s.files) {
			return fmt.Errorf("%v %q: %s holds %d files, %d were written", s.kind, k, s.dir, len(e), len(s.files))
		}
		if uid := ownerOf(s.dir); uid != s.uid {
			return fmt.Errorf("%v %q: %s belongs to user %d, should to %d", s.kind, k, s.dir, uid, s.uid)
		}
		for name, want := range s.files {
			got, err := os.ReadFile(filepath.Join(s.dir, name))
			if err != nil || string(got) != want {
				return fmt.Errorf("%v %q: file %s/%s: %d bytes, %d were written and fsynced (%v)",
					s.kind, k, s.dir, name, len(got), len(want), err)
			}
		}
	}
	for _, k := range keys {
		s := w.snaps[k]
		if s.kind == api.KindCommitted {
			continue
		}
		// A second pass: by now the directory of every active snapshot is known.
		m, err := a.Mounts(ctx, &api.MountsRequest{Key: k})
		if err != nil {
			return fmt.Errorf("Mounts %q: %v", k, err)
		}
		p, err := placeOf(m.Mounts)
		if err != nil {
			return fmt.Errorf("Mounts %q: %v", k, err)
		}
		if bad := w.checkPlace(s, p); bad != "" {
			return fmt.Errorf("Mounts %q: %v: %s", k, s.mounts, bad)
		}
	}
	if _, err := a.Cleanup(ctx, &api.CleanupRequest{}); err != nil {
		return fmt.Errorf("Cleanup: %v", err)
	}
	rows, err := database(d.Root, integrity)
	if err != nil {
		return err
	}
	if len(rows) != len(w.snaps) {
		return fmt.Errorf("%d rows, %d snapshots", len(rows), len(w.snaps))
	}
	for id, r := range rows {
		s := w.snaps[r.key]
		if s == nil {
			return fmt.Errorf("row %s: key %q is not listed", id, r.key)
		}
		if r.kind != int(s.kind) {
			return fmt.Errorf("row %s: %q is of kind %d, listed as %v", id, r.key, r.kind, s.kind)
		}
		base := filepath.Join(d.Root, "snapshots", id)
		for _, dir := range []string{base, filepath.Join(d.Root, "work", id)} {
			if st, err := os.Stat(dir); err != nil || !st.IsDir() {
				return fmt.Errorf("%v %q has no directory %s: %v", s.kind, r.key, dir, err)
			}
		}
		if s.kind != api.KindView && s.dir == "" {
			s.dir = base
		}
		if s.kind != api.KindView && s.dir != base {
			return fmt.Errorf("%v %q lies in %s, its row says %s", s.kind, r.key, s.dir, base)
		}
	}
	if err := noStrays(d.Root, rows, maxSpares, 30*time.Second); err != nil {
		return err
	}
	e, err := os.ReadDir(d.Root)
	if err != nil {
		return err
	}
	for _, f := range e {
		switch f.Name() {
		case "metadata.db", "metadata.db-wal", "metadata.db-shm", "metadata.db-journal", "lock", "snapshots", "work", "empty":
		default:
			return fmt.Errorf("the root holds %q after Cleanup", f.Name())
		}
	}
	return nil
}

// noStrays waits until nothing lies in snapshots/ and work/ but directories with rows and a few spares: a spare
// may be in the making at the moment of the look.
func noStrays(root string, rows map[string]row, spareLimit int, limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		bad, spares, err := strays(root, rows)
		if err != nil {
			return err
		}
		if len(bad) == 0 && spares <= spareLimit {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("left without a row: %v, and %d empty spares (allowed: %d)", bad, spares, spareLimit)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) setStopping(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping = on
}

// fresh makes a directory for one test.
func fresh(name string) (string, func(bool), error) {
	dir, err := os.MkdirTemp(*tmp, name)
	if err != nil {
		return "", nil, err
	}
	return dir, func(bad bool) {
		if bad && *keep {
			fmt.Printf("     kept: %s\n", dir)
			return
		}
		os.RemoveAll(dir)
	}, nil
}

func sameUsage(a, b *api.UsageResponse) bool { return a.Size_ == b.Size_ && a.Inodes == b.Inodes }

func syncRemove(on bool) []string {
	return []string{fmt.Sprintf("overlay.sync_remove=%v", on)}
}

// stopClean stops a daemon by SIGTERM, and checks that it leaves nothing but what its rows name.
func stopClean(w *world, d *daemon.Daemon) error {
	if err := d.Stop(kit.StopLimit); err != nil {
		return err
	}
	rows, err := database(d.Root, true)
	if err != nil {
		return err
	}
	if len(rows) != len(w.snaps) {
		return fmt.Errorf("after a clean stop: %d rows, %d snapshots", len(rows), len(w.snaps))
	}
	return nil
}

// randomKills is the test under a mixed load. mode is "false", "true", or "mixed" (at random at each start).
func randomKills(name, mode string, kills int, rng *rand.Rand) (err error) {
	dir, done, err := fresh("crash")
	if err != nil {
		return err
	}
	defer func() { done(err != nil) }()
	w := newWorld()
	begin := time.Now()
	fast, clean := 0, 0
	for n, lives := 0, 0; n < kills; lives++ {
		sync := mode == "true" || (mode == "mixed" && rng.Intn(2) == 0)
		c := daemon.Config{Exe: *exe, Dir: dir, Sets: syncRemove(sync)}
		if rng.Intn(8) == 0 {
			// Die during the recovery from the kill before, somewhere between exec and ready.
			d, err := daemon.Start(c)
			if err != nil {
				return err
			}
			t := time.NewTimer(time.Duration(rng.Intn(150)) * time.Millisecond)
			select {
			case <-t.C:
			case <-d.Exited():
				return fmt.Errorf("kill %d: the daemon ended by itself at start\n%s", n, d.LogTail(20))
			}
			d.Kill()
			fast++
			n++
		}
		d, err := kit.Start(c)
		if err != nil {
			return fmt.Errorf("kill %d: %v", n, err)
		}
		fail := func(err error) error {
			d.Kill()
			return fmt.Errorf("kill %d (sync_remove=%v): %v\nlog:\n%s", n, sync, err, d.LogTail(15))
		}
		if err := verify(w, d, lives%20 == 0); err != nil {
			return fail(err)
		}
		conn, err := d.Dial()
		if err != nil {
			return fail(err)
		}
		stop, over := make(chan struct{}), make(chan struct{})
		loadSeed := rng.Int63()
		go func() {
			load(w, conn, *clients, 0, loadSeed, stop)
			close(over)
		}()
		time.Sleep(time.Duration(rng.Intn(140*1000)) * time.Microsecond)
		alive := d.Alive()
		if lives%25 == 24 {
			// Now and then a clean stop while the clients wait for answers.
			w.setStopping(true)
			err = d.Stop(kit.StopLimit)
			clean++
		} else {
			d.Kill()
			n++
		}
		<-over
		w.setStopping(false)
		conn.Close()
		if !alive {
			return fail(errors.New("the daemon ended by itself under load"))
		}
		if err != nil {
			return fail(err)
		}
		if f := w.failed(); len(f) > 0 {
			return fail(errors.New(strings.Join(f, "\n")))
		}
		if err := d.Sanitizer(); err != nil {
			return fail(err)
		}
	}
	d, err := kit.Start(daemon.Config{Exe: *exe, Dir: dir, Sets: syncRemove(mode == "true")})
	if err != nil {
		return err
	}
	if err := verify(w, d, true); err != nil {
		d.Kill()
		return fmt.Errorf("after the last kill: %v\nlog:\n%s", err, d.LogTail(15))
	}
	if err := stopClean(w, d); err != nil {
		return err
	}
	rows, err := database(d.Root, false)
	if err != nil {
		return err
	}
	if err := noStrays(d.Root, rows, 0, 0); err != nil {
		return fmt.Errorf("after Cleanup and a clean stop: %v", err)
	}
	fmt.Printf("     %s: %d kills, %d of them during start, and %d clean stops, in %.0f s; %d snapshots at the end\n", name, kills, fast,
		clean, time.Since(begin).Seconds(), len(w.snaps))
	fmt.Printf("     answered: %v, refused as they must be: %d\n", w.calls, w.refused)
	fmt.Printf("     in flight at a kill, by outcome found (0: nothing done): %v\n", w.unknown)
	return nil
}

func main() {
	flag.StringVar(&tally.Only, "only", "", "run only tests whose name contains this")
	flag.Parse()
	if *seed == 0 {
		*seed = time.Now().UnixNano() % 1000000007
	}
	if *exe == "" {
		fmt.Fprintln(os.Stderr, "crash: -exe is missing")
		os.Exit(2)
	}
	fmt.Printf("seed %d\n", *seed)
	for _, mode := range []string{"mixed"} {
		name := "state_survives_random_kills_sync_remove_" + mode
		if tally.Wanted(name) {
			tally.Report(name, randomKills(name, mode, *kills, rand.New(rand.NewSource(*seed))))
		}
	}
	points()
	tally.Exit()
}
