// SPDX-License-Identifier: Apache-2.0

// Command content kills a content store with SIGKILL while clients work with it, starts it again on the same
// root, and compares what it then says, and what lies on disk, with a model of every call that was answered.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"time"

	"../daemon"
	"../kit"
	api "github.com/containerd/containerd/api/services/content/v1"
	digest "github.com/opencontainers/go-digest"
)

var (
	exe     = flag.String("exe", "", "content store to test")
	kills   = flag.Int("kills", 300, "how often to kill at random")
	clients = flag.Int("clients", 6, "concurrent clients")
	seed    = flag.Int64("seed", 0, "seed of all random choices; 0: from the clock")
	tmp     = flag.String("tmp", "", "where to make the temporary directory")
	keep    = flag.Bool("keep", false, "keep the root of a failed test")
	verbose = flag.Bool("v", false, "say what happens")
)

var tally kit.Tally

// look asks a daemon that has just started for all that it holds.
func look(a api.ContentClient, root string) (*found, error) {
	ctx, cancel := context.WithTimeout(context.Background(), kit.Hung)
	defer cancel()
	f := &found{ingests: map[string]*held{}}
	var err error
	if f.blobs, err = listAll(ctx, a); err != nil {
		return nil, fmt.Errorf("List: %w", err)
	}
	r, err := a.ListStatuses(ctx, &api.ListStatusesRequest{})
	if err != nil {
		return nil, fmt.Errorf("ListStatuses: %w", err)
	}
	files, err := ingestFiles(root)
	if err != nil {
		return nil, err
	}
	for i := range r.Statuses {
		ref := r.Statuses[i].Ref
		file, ok := files[ref]
		if !ok {
			return nil, fmt.Errorf("ingest %q has no file", ref)
		}
		f.ingests[ref] = &held{&r.Statuses[i], file}
	}
	return f, nil
}

// verify compares a daemon that has just started with the model, and learns how the calls that were in flight
// have ended. With all, every blob is read through the socket, not only some.
func verify(w *world, d *daemon.Daemon, rng *rand.Rand, all bool) error {
	conn, err := d.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	a := api.NewContentClient(conn)
	f, err := look(a, d.Root)
	if err != nil {
		return err
	}
	w.settle(f)
	w.compare(f)
	if bad := w.failed(); len(bad) > 0 {
		return errors.New(strings.Join(bad, "\n"))
	}
	if err := w.checkDisk(d.Root); err != nil {
		return err
	}
	var digests []digest.Digest
	for k := range w.blobs {
		digests = append(digests, k)
	}
	sort.Slice(digests, func(i, j int) bool { return digests[i] < digests[j] })
	ctx, cancel := context.WithTimeout(context.Background(), kit.Hung)
	defer cancel()
	for _, k := range digests {
		if !all && rng.Intn(10) != 0 {
			continue
		}
		b := w.blobs[k]
		r, err := a.Info(ctx, &api.InfoRequest{Digest: k})
		if err != nil {
			return fmt.Errorf("Info %s: %v", k, err)
		}
		if diff := b.differs(&r.Info); diff != "" {
			return fmt.Errorf("Info %s: %s: %s, listed as %v", k, diff, showInfo(&r.Info), b)
		}
		got, err := readAll(ctx, a, &api.ReadContentRequest{Digest: k})
		if err != nil || !bytes.Equal(got, b.data) {
			return fmt.Errorf("Read %s: %d bytes, not those that were committed (%v)", k, len(got), err)
		}
	}
	return checkRows(w, d.Root, all)
}

func checkRows(w *world, root string, integrity bool) error {
	out, err := kit.Integrity(*tmp, root, "SELECT count(*) FROM blobs;", integrity)
	if err != nil {
		return err
	}
	if n := strings.TrimSpace(out); n != fmt.Sprint(len(w.blobs)) {
		return fmt.Errorf("%s rows, %d blobs", n, len(w.blobs))
	}
	return nil
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

// stopClean stops a daemon by SIGTERM, and checks that it leaves nothing but what the model knows.
func stopClean(w *world, d *daemon.Daemon) error {
	if err := d.Stop(kit.StopLimit); err != nil {
		return err
	}
	if err := checkRows(w, d.Root, true); err != nil {
		return fmt.Errorf("after a clean stop: %v", err)
	}
	if err := w.checkDisk(d.Root); err != nil {
		return fmt.Errorf("after a clean stop: %v", err)
	}
	return nil
}

// randomKills is the test under a mixed load.
func randomKills(name string, kills int, rng *rand.Rand) (err error) {
	dir, done, err := fresh("crash")
	if err != nil {
		return err
	}
	defer func() { done(err != nil) }()
	w := newWorld()
	begin := time.Now()
	early, clean := 0, 0
	c := daemon.Config{Exe: *exe, Dir: dir}
	for n, lives := 0, 0; n < kills; lives++ {
		if rng.Intn(8) == 0 {
			// Die during the recovery from the kill before, somewhere between exec and ready.
			d, err := daemon.Start(c)
			if err != nil {
				return err
			}
			t := time.NewTimer(time.Duration(rng.Intn(100)) * time.Millisecond)
			select {
			case <-t.C:
			case <-d.Exited():
				return fmt.Errorf("kill %d: the daemon ended by itself at start\n%s", n, d.LogTail(20))
			}
			d.Kill()
			early++
			n++
		}
		d, err := kit.Start(c)
		if err != nil {
			return fmt.Errorf("kill %d: %v", n, err)
		}
		fail := func(err error) error {
			d.Kill()
			return fmt.Errorf("kill %d: %v\nlog:\n%s", n, err, d.LogTail(15))
		}
		if err := verify(w, d, rng, lives%20 == 0); err != nil {
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
		time.Sleep(time.Duration(rng.Intn(250*1000)) * time.Microsecond)
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
	d, err := kit.Start(c)
	if err != nil {
		return err
	}
	if err := verify(w, d, rng, true); err != nil {
		d.Kill()
		return fmt.Errorf("after the last kill: %v\nlog:\n%s", err, d.LogTail(15))
	}
	if err := stopClean(w, d); err != nil {
		return err
	}
	fmt.Printf("     %s: %d kills, %d of them during start, and %d clean stops, in %.0f s; %d blobs and %d ingests at the end\n", name,
		kills, early, clean, time.Since(begin).Seconds(), len(w.blobs), len(w.ingests))
	fmt.Printf("     answered: %v, refused as they must be: %d; %d MiB of ingests were found again\n", w.calls, w.refused, w.resumed>>20)
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
		fmt.Fprintln(os.Stderr, "content: -exe is missing")
		os.Exit(2)
	}
	fmt.Printf("seed %d\n", *seed)
	name := "blobs_and_ingests_survive_random_kills"
	if tally.Wanted(name) {
		tally.Report(name, randomKills(name, *kills, rand.New(rand.NewSource(*seed))))
	}
	points()
	tally.Exit()
}
