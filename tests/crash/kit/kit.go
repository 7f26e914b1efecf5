// SPDX-License-Identifier: Apache-2.0

// Package kit is what the crash tests of all daemons need: times and labels of a model, crash points, and a
// count of what passed.
package kit

import (
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"time"

	"../daemon"
	"google.golang.org/grpc"
)

// Limits are generous: waits that end for good only when something is wrong.
const (
	StartLimit = 60 * time.Second
	StopLimit  = 60 * time.Second
	Hung       = 90 * time.Second // how long a call may take before it counts as hung
)

// Window is a time that is known only to lie between two others.
type Window struct {
	Lo, Hi time.Time
	At     time.Time // exact, once it has been seen
}

// FromNow is the window of a call that is about to be made; its Hi is set when it is answered.
func FromNow() Window {
	return Window{Lo: time.Now(), Hi: time.Now().Add(time.Hour)}
}

// slack allows for a clock that ticks more coarsely in the daemon than here.
const slack = 20 * time.Millisecond

// Admits says whether a time that was seen can be the one meant.
func (w Window) Admits(t time.Time) bool {
	if !w.At.IsZero() {
		return t.Equal(w.At)
	}
	return !t.Before(w.Lo.Add(-slack)) && !t.After(w.Hi.Add(slack))
}

func (w Window) String() string {
	if !w.At.IsZero() {
		return w.At.Format(time.RFC3339Nano)
	}
	return w.Lo.Format(time.RFC3339Nano) + ".." + w.Hi.Format(time.RFC3339Nano)
}

// ShowLabels writes labels for a message.
func ShowLabels(l map[string]string) string {
	var out []string
	for k, v := range l {
		if len(v) > 24 {
			v = fmt.Sprintf("%s…(%d)", v[:24], len(v))
		}
		out = append(out, fmt.Sprintf("%q:%q", k, v))
	}
	sort.Strings(out)
	return "{" + strings.Join(out, " ") + "}"
}

// SameLabels compares two sets of labels.
func SameLabels(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// NoEmpty is what is kept of labels: those with a value.
func NoEmpty(l map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range l {
		if v != "" {
			out[k] = v
		}
	}
	return out
}

// Tally counts tests as they end.
type Tally struct {
	Only    string // run only tests whose name contains this
	Passed  int
	Failed  int
	Skipped int
}

// Wanted says whether a test is to be run.
func (t *Tally) Wanted(name string) bool { return strings.Contains(name, t.Only) }

// Report says how a test ended.
func (t *Tally) Report(name string, err error) {
	if err != nil {
		t.Failed++
		fmt.Printf("FAIL %s\n", name)
		for _, l := range strings.Split(err.Error(), "\n") {
			fmt.Printf("     %s\n", l)
		}
		return
	}
	t.Passed++
	fmt.Printf("ok   %s\n", name)
}

// Skip says why a test was not run.
func (t *Tally) Skip(name, why string) {
	t.Skipped++
	fmt.Printf("skip %s (%s)\n", name, why)
}

// Exit prints the sum and ends the program.
func (t *Tally) Exit() {
	fmt.Printf("%d passed, %d failed, %d skipped\n", t.Passed, t.Failed, t.Skipped)
	if t.Failed > 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

// Start starts a daemon and waits until it is ready.
func Start(c daemon.Config) (*daemon.Daemon, error) {
	d, err := daemon.Start(c)
	if err != nil {
		return nil, err
	}
	if err := d.WaitReady(StartLimit); err != nil {
		d.Kill()
		return nil, fmt.Errorf("start: %v\n%s", err, d.LogTail(20))
	}
	return d, nil
}

// CrashPoints asks a daemon which crash points it has.
func CrashPoints(exe string) ([]string, error) {
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "LIGHTER_CRASH_POINT=list")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("LIGHTER_CRASH_POINT=list: %v", err)
	}
	seen := map[string]bool{}
	var names []string
	for _, n := range strings.Fields(string(out)) {
		if !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return names, nil
}

// DialUnlessDead connects, unless the daemon has died, which is no error here; ready is how its start ended.
func DialUnlessDead(d *daemon.Daemon, ready error) (*grpc.ClientConn, error) {
	if ready != nil || !d.Alive() {
		return nil, nil
	}
	type result struct {
		conn *grpc.ClientConn
		err  error
	}
	ch := make(chan result, 1)
	go func() {
		c, err := d.Dial()
		ch <- result{c, err}
	}()
	select {
	case r := <-ch:
		return r.conn, r.err
	case <-d.Exited():
		return nil, nil
	}
}

// Integrity copies a database and lets sqlite's own command line look at the copy, so that looking does not
// recover or checkpoint what the daemon is to find. It returns what the query prints; with check, the database
// is checked first.
func Integrity(tmp, root, query string, check bool) (string, error) {
	dir, err := os.MkdirTemp(tmp, "db")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for _, f := range []string{"metadata.db", "metadata.db-wal"} {
		data, err := os.ReadFile(root + "/" + f)
		if err != nil {
			if f == "metadata.db" {
				return "", err
			}
			continue
		}
		if err := os.WriteFile(dir+"/"+f, data, 0600); err != nil {
			return "", err
		}
	}
	db := dir + "/metadata.db"
	if check {
		out, err := exec.Command("sqlite3", db, "PRAGMA integrity_check; PRAGMA foreign_key_check;").CombinedOutput()
		if s := strings.TrimSpace(string(out)); err != nil || s != "ok" {
			return "", fmt.Errorf("integrity_check: %v: %s", err, s)
		}
	}
	out, err := exec.Command("sqlite3", "-separator", "|", db, query).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("sqlite3: %v: %s", err, out)
	}
	return string(out), nil
}
