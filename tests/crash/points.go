// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"./daemon"
	"./kit"
	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// passes are the passes of a point at which to die.
var passes = []int{1, 2, 7}

// points is the test at every named point. Each is driven twice: from an empty root, and from one on
// which an earlier kill has left work for the recovery.
func points() {
	names, err := kit.CrashPoints(*exe)
	if err != nil || len(names) == 0 {
		if tally.Wanted("point") {
			tally.Skip("state_survives_a_kill_at_each_named_point", "this build has no crash points")
		}
		return
	}
	for _, p := range names {
		name := "state_survives_a_kill_at_point_" + p
		if !tally.Wanted(name) {
			continue
		}
		tally.Report(name, atPoint(p))
	}
}

func atPoint(point string) (err error) {
	dir, done, err := fresh("point")
	if err != nil {
		return err
	}
	defer func() { done(err != nil) }()
	hits := 0
	var where []string
	n := 0
	for _, sync := range []bool{false, true} {
		for _, used := range []bool{false, true} {
			for _, pass := range passes {
				n++
				sub := filepath.Join(dir, strconv.Itoa(n))
				if err := os.Mkdir(sub, 0755); err != nil {
					return err
				}
				hit, err := dieAt(sub, point, pass, sync, used)
				what := fmt.Sprintf("pass %d, sync_remove=%v, used root=%v", pass, sync, used)
				if err != nil {
					return fmt.Errorf("%s: %v", what, err)
				}
				if hit == "" {
					// What was not passed this often here will not be passed more often.
					break
				}
				hits++
				where = append(where, hit)
				os.RemoveAll(sub)
			}
		}
	}
	if hits == 0 {
		return errors.New("the point was never reached")
	}
	if *verbose {
		fmt.Printf("     %s: %d deaths: %s\n", point, hits, strings.Join(where, " "))
	}
	return nil
}

const driveSteps = 150

// dieAt drives a daemon until it dies at the given pass of a point, and verifies what is left. It
// returns when it died: "start", "load", "stop", or "" if it did not.
func dieAt(dir, point string, pass int, sync, used bool) (when string, err error) {
	w := newWorld()
	rng := rand.New(rand.NewSource(*seed + int64(pass)))
	c := daemon.Config{Exe: *exe, Dir: dir, Sets: syncRemove(sync)}
	if used {
		if err := makeUsed(w, c, rng.Int63()); err != nil {
			return "", err
		}
	}
	dying := c
	dying.Env = []string{fmt.Sprintf("LIGHTER_CRASH_POINT=%s:%d", point, pass)}
	d, err := daemon.Start(dying)
	if err != nil {
		return "", err
	}
	defer func() { d.Kill() }()
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("%v\nlog:\n%s", err, d.LogTail(15))
	}
	when = "start"
	err = d.WaitReady(kit.StartLimit)
	if err != nil && err != daemon.ErrExited {
		return fail(err)
	}
	// The daemon may also die between being ready and the first call.
	if conn, derr := kit.DialUnlessDead(d, err); conn != nil {
		when = "load"
		// What the kill before left open is settled first, or else two calls of one client would be.
		ctx, cancel := context.WithTimeout(context.Background(), kit.Hung)
		seen, lerr := listAll(ctx, api.NewSnapshotsClient(conn))
		cancel()
		if lerr == nil {
			w.settle(seen)
			w.compare(seen)
			load(w, conn, 4, driveSteps, rng.Int63(), make(chan struct{}))
		} else if status.Code(lerr) != codes.Unavailable {
			return fail(fmt.Errorf("List: %v", lerr))
		}
		conn.Close()
		if f := w.failed(); len(f) > 0 {
			return fail(errors.New(strings.Join(f, "\n")))
		}
		if d.Alive() && len(w.inflight) > 0 {
			// The connection broke because the daemon is dying.
			if err := d.WaitExit(kit.StopLimit); err != nil {
				return fail(fmt.Errorf("calls failed with Unavailable: %v", err))
			}
		}
		if d.Alive() {
			when = "stop"
			if err := d.Terminate(kit.StopLimit); err != nil {
				return fail(err)
			}
			if !d.Killed() {
				when = ""
				if d.ExitCode() != 0 {
					return fail(fmt.Errorf("exit code %d after SIGTERM", d.ExitCode()))
				}
			}
		}
	} else if derr != nil {
		return fail(derr)
	}
	if when != "" && !d.Killed() {
		return fail(fmt.Errorf("ended at its %s, but not by SIGKILL (exit code %d)", when, d.ExitCode()))
	}
	if err := d.Sanitizer(); err != nil {
		return fail(err)
	}
	d, err = kit.Start(c)
	if err != nil {
		return "", err
	}
	if err := verify(w, d, true); err != nil {
		return fail(fmt.Errorf("died at its %s; %v", when, err))
	}
	if err := stopClean(w, d); err != nil {
		return fail(err)
	}
	rows, err := database(d.Root, false)
	if err != nil {
		return fail(err)
	}
	if err := noStrays(d.Root, rows, 0, 0); err != nil {
		return fail(fmt.Errorf("after Cleanup and a clean stop: %v", err))
	}
	return when, nil
}

// makeUsed leaves a root as a killed daemon would: snapshots, directories whose Remove was answered
// and whose deletion was still to come, and half-made ones.
func makeUsed(w *world, c daemon.Config, seed int64) error {
	first := c
	first.Sets = syncRemove(false)
	d, err := kit.Start(first)
	if err != nil {
		return err
	}
	conn, err := d.Dial()
	if err != nil {
		d.Kill()
		return err
	}
	stop := make(chan struct{})
	over := make(chan struct{})
	go func() {
		load(w, conn, 4, 0, seed, stop)
		close(over)
	}()
	deadline := time.Now().Add(kit.Hung)
	for {
		w.mu.Lock()
		enough := w.calls["Remove"] > 10 && w.calls["Commit"] > 10
		bad := len(w.failures) > 0
		w.mu.Unlock()
		if enough || bad || !d.Alive() || time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	alive := d.Alive()
	d.Kill()
	<-over
	conn.Close()
	if f := w.failed(); len(f) > 0 || !alive {
		return fmt.Errorf("load before the test: alive=%v %s\nlog:\n%s", alive, strings.Join(f, "\n"), d.LogTail(15))
	}
	// Directories of numbers that are not handed out yet: one with content, as if its row had been lost
	// with the power, and one half made.
	for i, path := range []string{"snapshots/%d/file", "work/%d"} {
		p := filepath.Join(d.Root, fmt.Sprintf(path, 900000+i))
		if err := os.MkdirAll(p, 0755); err != nil {
			return err
		}
	}
	return nil
}
