// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"../daemon"
	"../kit"
	api "github.com/containerd/containerd/api/services/content/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// passes are the passes of a point at which to die.
var passes = []int{1, 2, 7}

// points is the test at every named point. Each is driven twice: from an empty root, and from one on which an
// earlier kill has left work for the recovery.
func points() {
	names, err := kit.CrashPoints(*exe)
	if err != nil || len(names) == 0 {
		if tally.Wanted("point") {
			tally.Skip("blobs_and_ingests_survive_a_kill_at_each_named_point", "this build has no crash points")
		}
		return
	}
	for _, p := range names {
		if elsewhere(p) {
			continue
		}
		name := "blobs_and_ingests_survive_a_kill_at_point_" + p
		if tally.Wanted(name) {
			tally.Report(name, atPoint(p))
		}
	}
}

// elsewhere tells whether clients alone do not lead there: the points of the commands, and those where the catalog is
// made anew, are what tests/content dies at.
func elsewhere(point string) bool {
	for _, prefix := range []string{"import.", "verify.", "quarantine.", "catalog.file-deleted", "catalog.made-up"} {
		if strings.HasPrefix(point, prefix) {
			return true
		}
	}
	return false
}

func atPoint(point string) (err error) {
	dir, done, err := fresh("point")
	if err != nil {
		return err
	}
	defer func() { done(err != nil) }()
	var where []string
	n := 0
	for _, used := range []bool{false, true} {
		for _, pass := range passes {
			n++
			sub := filepath.Join(dir, strconv.Itoa(n))
			if err := os.Mkdir(sub, 0755); err != nil {
				return err
			}
			hit, err := dieAt(sub, point, pass, used)
			if err != nil {
				return fmt.Errorf("pass %d, used root=%v: %v", pass, used, err)
			}
			if hit == "" {
				// What was not passed this often here will not be passed more often.
				break
			}
			where = append(where, hit)
			os.RemoveAll(sub)
		}
	}
	if len(where) == 0 {
		return errors.New("the point was never reached")
	}
	if *verbose {
		fmt.Printf("     %s: %d deaths: %s\n", point, len(where), strings.Join(where, " "))
	}
	return nil
}

const driveSteps = 120

// dieAt drives a daemon until it dies at the given pass of a point, and verifies what is left. It returns when
// it died: "start", "load", "stop", or "" if it did not.
func dieAt(dir, point string, pass int, used bool) (when string, err error) {
	w := newWorld()
	rng := rand.New(rand.NewSource(*seed + int64(pass)))
	c := daemon.Config{Exe: *exe, Dir: dir}
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
		f, lerr := look(api.NewContentClient(conn), d.Root)
		if lerr == nil {
			w.settle(f)
			w.compare(f)
			load(w, conn, 4, driveSteps, rng.Int63(), make(chan struct{}))
		} else if status.Code(errors.Unwrap(lerr)) != codes.Unavailable {
			return fail(lerr)
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
	if err := verify(w, d, rng, true); err != nil {
		return fail(fmt.Errorf("died at its %s; %v", when, err))
	}
	if err := stopClean(w, d); err != nil {
		return fail(err)
	}
	return when, nil
}

// makeUsed leaves a root as a killed daemon would, with halves of everything that the next start has to settle.
func makeUsed(w *world, c daemon.Config, seed int64) error {
	d, err := kit.Start(c)
	if err != nil {
		return err
	}
	conn, err := d.Dial()
	if err != nil {
		d.Kill()
		return err
	}
	over := make(chan struct{})
	go func() {
		load(w, conn, 4, 0, seed, make(chan struct{}))
		close(over)
	}()
	deadline := time.Now().Add(kit.Hung)
	for {
		w.mu.Lock()
		enough := w.calls["Delete"] > 10 && w.calls["COMMIT"] > 10
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
	// What kills leave seldom: a file of a commit without a row, bytes without a reference, a reference cut short.
	for name, text := range map[string]string{
		"blobs/sha256/" + strings.Repeat("ab", 32): "no row",
		"blobs/sha512/" + strings.Repeat("cd", 64): "no row",
		"ingests/900000":     "nobody's bytes",
		"catalog.db":         "damaged",
		"catalog.db-wal":     "damaged",
		"ingests/900001.ref": "lighter-inge",
		"ingests/900001":     "bytes of a damaged reference",
	} {
		if err := os.WriteFile(filepath.Join(d.Root, name), []byte(text), 0600); err != nil {
			return err
		}
	}
	return nil
}
