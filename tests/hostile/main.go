// SPDX-License-Identifier: Apache-2.0

// Command hostile sends a snapshotter, or a content store, what no honest client sends, and lets its surroundings fail.
// After each attack it must answer ordinary calls, know the same as before, and give back
// descriptors and memory.
package main

import (
	"bufio"
	"context"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"../crash/daemon"
	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	startLimit = 60 * time.Second
	stopLimit  = 60 * time.Second
)

var (
	exe       = flag.String("exe", "", "daemon to test")
	tmp       = flag.String("tmp", "", "where to make the temporary directory")
	only      = flag.String("only", "", "run only tests whose name contains this")
	seed      = flag.Int64("seed", 1, "seed of all random choices")
	verbose   = flag.Bool("v", false, "say how long each test takes and how much memory it leaves in use")
	isContent = flag.Bool("content", false, "it is a content store")
	part      = flag.String("part", "all", "of the tests of a content store: all; attacks, which clients make; races; or large")
	sanitized bool // the executable is built with AddressSanitizer or ThreadSanitizer
)

var passed, failed, skipped int

// skipError is a test's reason not to run.
type skipError string

func (s skipError) Error() string { return string(s) }

func run(name string, f func() error) {
	if !strings.Contains(name, *only) {
		return
	}
	begin := time.Now()
	err := f()
	if *verbose {
		fmt.Printf("     took %.1f s\n", time.Since(begin).Seconds())
	}
	var why skipError
	switch {
	case err == nil:
		passed++
		fmt.Printf("ok   %s\n", name)
	case errors.As(err, &why):
		skipped++
		fmt.Printf("skip %s (%s)\n", name, string(why))
	default:
		failed++
		fmt.Printf("FAIL %s\n", name)
		for _, l := range strings.Split(err.Error(), "\n") {
			if len(l) > 1000 {
				l = l[:500] + " ... " + l[len(l)-400:] // some carry a giant key
			}
			fmt.Printf("     %s\n", l)
		}
	}
}

// target is a daemon with some snapshots in it, which attacks share.
type target struct {
	dir         string
	d           *daemon.Daemon
	conn        *grpc.ClientConn
	api         api.SnapshotsClient
	baseSockets int
	baseFiles   int
	baseDirty   int
	logFrom     int64
	population  map[string]*api.Info
	dirsOutside string
}

func background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func start(c daemon.Config) (*daemon.Daemon, error) {
	d, err := daemon.Start(c)
	if err != nil {
		return nil, err
	}
	if err := d.WaitReady(startLimit); err != nil {
		d.Kill()
		return nil, fmt.Errorf("%v\n%s", err, d.LogTail(20))
	}
	return d, nil
}

func newTarget() (*target, error) {
	dir, err := os.MkdirTemp(*tmp, "h")
	if err != nil {
		return nil, err
	}
	t := &target{dir: dir}
	if t.d, err = start(daemon.Config{Exe: *exe, Dir: dir}); err != nil {
		return nil, err
	}
	if t.conn, err = t.d.Dial(); err != nil {
		return nil, err
	}
	t.api = api.NewSnapshotsClient(t.conn)
	if err := t.populate(); err != nil {
		return nil, err
	}
	// Let every kind of call have run, so that what is allocated once is there.
	for i := 0; i < 50; i++ {
		if err := t.ordinary(); err != nil {
			return nil, err
		}
	}
	errs := make(chan error)
	const crowd = 64
	for i := 0; i < crowd; i++ {
		go func() {
			ctx, cancel := background()
			defer cancel()
			_, err := list(ctx, t.api)
			errs <- err
		}()
	}
	for i := 0; i < crowd; i++ {
		if err := <-errs; err != nil {
			return nil, err
		}
	}
	t.baseSockets, t.baseFiles = t.fds()
	_, t.baseDirty = t.d.Mem()
	return t, nil
}

// populate makes a few snapshots of each kind.
func (t *target) populate() error {
	ctx, cancel := background()
	defer cancel()
	parent := ""
	for i := 0; i < 5; i++ {
		key, name := fmt.Sprintf("work %d", i), fmt.Sprintf("default/%d/layer", i)
		if _, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: key, Parent: parent}); err != nil {
			return err
		}
		if _, err := t.api.Commit(ctx, &api.CommitSnapshotRequest{Name: name, Key: key, Labels: map[string]string{
			"n": strconv.Itoa(i), "a.b/c": "x y", "containerd.io/snapshot/k": "ü", "odd": fmt.Sprint(i % 2)}}); err != nil {
			return err
		}
		if _, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: fmt.Sprintf("active-%d", i), Parent: name,
			Labels: map[string]string{"role": "container", "n": strconv.Itoa(i)}}); err != nil {
			return err
		}
		if _, err := t.api.View(ctx, &api.ViewSnapshotRequest{Key: fmt.Sprintf("view \"%d\"", i), Parent: name}); err != nil {
			return err
		}
		parent = name
	}
	if _, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: "bottom"}); err != nil {
		return err
	}
	var err error
	t.population, err = list(ctx, t.api)
	return err
}

func list(ctx context.Context, a api.SnapshotsClient, filters ...string) (map[string]*api.Info, error) {
	st, err := a.List(ctx, &api.ListSnapshotsRequest{Filters: filters})
	if err != nil {
		return nil, err
	}
	seen := map[string]*api.Info{}
	for {
		r, err := st.Recv()
		if err == io.EOF {
			return seen, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range r.Info {
			seen[r.Info[i].Name] = &r.Info[i]
		}
	}
}

// ordinary makes one of every call, as an honest client would.
func (t *target) ordinary() error { return ordinary(t.api) }

func ordinary(a api.SnapshotsClient) error {
	ctx, cancel := background()
	defer cancel()
	key, name := "ordinary", "ordinary done"
	if _, err := a.Prepare(ctx, &api.PrepareSnapshotRequest{Key: key}); err != nil {
		return fmt.Errorf("ordinary Prepare: %v", err)
	}
	if _, err := a.Mounts(ctx, &api.MountsRequest{Key: key}); err != nil {
		return fmt.Errorf("ordinary Mounts: %v", err)
	}
	if _, err := a.Commit(ctx, &api.CommitSnapshotRequest{Name: name, Key: key}); err != nil {
		return fmt.Errorf("ordinary Commit: %v", err)
	}
	if _, err := a.View(ctx, &api.ViewSnapshotRequest{Key: key, Parent: name}); err != nil {
		return fmt.Errorf("ordinary View: %v", err)
	}
	if _, err := a.Update(ctx, &api.UpdateSnapshotRequest{Info: api.Info{Name: name, Labels: map[string]string{"a": "b"}}}); err != nil {
		return fmt.Errorf("ordinary Update: %v", err)
	}
	if r, err := a.Stat(ctx, &api.StatSnapshotRequest{Key: name}); err != nil || r.Info.Labels["a"] != "b" {
		return fmt.Errorf("ordinary Stat: %v %v", r, err)
	}
	if _, err := a.Usage(ctx, &api.UsageRequest{Key: name}); err != nil {
		return fmt.Errorf("ordinary Usage: %v", err)
	}
	if _, err := list(ctx, a); err != nil {
		return fmt.Errorf("ordinary List: %v", err)
	}
	for _, k := range []string{key, name} {
		if _, err := a.Remove(ctx, &api.RemoveSnapshotRequest{Key: k}); err != nil {
			return fmt.Errorf("ordinary Remove: %v", err)
		}
	}
	if _, err := a.Cleanup(ctx, &api.CleanupRequest{}); err != nil {
		return fmt.Errorf("ordinary Cleanup: %v", err)
	}
	return nil
}

// removeOthers removes what an attack was right to be allowed to make.
func (t *target) removeOthers() error {
	ctx, cancel := background()
	defer cancel()
	for again := true; again; {
		again = false
		seen, err := list(ctx, t.api)
		if err != nil {
			return err
		}
		for k := range seen {
			if t.population[k] != nil {
				continue
			}
			if _, err := t.api.Remove(ctx, &api.RemoveSnapshotRequest{Key: k}); err == nil {
				again = true
			} else if status.Code(err) != codes.FailedPrecondition {
				return fmt.Errorf("Remove %q: %v", k, err)
			}
		}
	}
	return nil
}

// eventually waits for a condition that has no event to wait for; what describes the last look.
func eventually(what func() string, cond func() bool) error {
	end := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(end) {
			return errors.New(what())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// poolFiles is how many descriptors a daemon may have more after a crowd than before: each of its 16 workers,
// and the poller, may have a connection to the database by then, which has two. They stay for later.
const poolFiles = 2 * 17

// fds counts the daemon's sockets and its other descriptors.
func (t *target) fds() (sockets, files int) {
	dir := fmt.Sprintf("/proc/%d/fd", t.d.Pid())
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			sockets++
		} else {
			files++
		}
	}
	return sockets, files
}

// Bounds on memory that stays in use. A release build must come back near to where it was; up to 17 connections
// to the database with their caches, some 300 KiB each, may have come into use meanwhile, and stay; and what
// malloc() cannot give back after a thousand clients at once is some 5 MiB, which twelve such crowds do not make
// more. A sanitizer keeps freed memory in quarantine and must only stay bounded.
const (
	releaseGrowthKiB = 16 << 10
	sanitizedRssKiB  = 3 << 19
)

// quarantine is what a sanitizer's build may hold beside what is in use, in KiB: freed memory, by default
// 256 MiB of it (ASan's quarantine_size_mb), and what stands around each block.
func quarantine() int {
	if sanitized {
		return 512 << 10
	}
	return 0
}

// unharmed checks that an attack has left nothing.
func (t *target) unharmed() error {
	if !t.d.Alive() {
		return fmt.Errorf("the daemon died\n%s", t.d.LogTail(40))
	}
	if err := t.ordinary(); err != nil {
		return err
	}
	ctx, cancel := background()
	defer cancel()
	seen, err := list(ctx, t.api)
	if err != nil {
		return fmt.Errorf("List afterwards: %v", err)
	}
	for k := range seen {
		if t.population[k] == nil {
			return fmt.Errorf("snapshot %q is there and should not be", k)
		}
	}
	for k, i := range t.population {
		if !reflect.DeepEqual(seen[k], i) {
			return fmt.Errorf("snapshot %q was %v, is %v", k, i, seen[k])
		}
	}
	sockets, files := 0, 0
	if err := eventually(func() string {
		return fmt.Sprintf("%d sockets and %d other descriptors are open, %d and %d before", sockets, files, t.baseSockets, t.baseFiles)
	}, func() bool {
		sockets, files = t.fds()
		return sockets <= t.baseSockets && files <= t.baseFiles+poolFiles
	}); err != nil {
		return err
	}
	rss, dirty := 0, 0
	if sanitized {
		rss, _ = t.d.Mem()
		if rss > sanitizedRssKiB {
			return fmt.Errorf("resident: %d KiB", rss)
		}
	} else if err := eventually(func() string { return fmt.Sprintf("private memory is %d KiB, was %d", dirty, t.baseDirty) },
		func() bool { _, dirty = t.d.Mem(); return dirty <= t.baseDirty+releaseGrowthKiB }); err != nil {
		return err
	}
	if *verbose {
		rss, dirty = t.d.Mem()
		fmt.Printf("     after it: Rss %d KiB, Private_Dirty %d KiB (at first %d), %d sockets (%d), %d other descriptors (%d), peak %d KiB\n", rss, dirty,
			t.baseDirty, sockets, t.baseSockets, files, t.baseFiles, t.peak())
	}
	return t.d.Sanitizer()
}

// peak is the highest resident size since resetPeak, in KiB.
func (t *target) peak() int {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", t.d.Pid()))
	if err != nil {
		return -1
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if w := strings.Fields(s.Text()); len(w) > 1 && w[0] == "VmHWM:" {
			n, _ := strconv.Atoi(w[1])
			return n
		}
	}
	return -1
}

func (t *target) resetPeak() {
	os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", t.d.Pid()), []byte("5"), 0)
}

// invoke sends bytes as the message of a unary call, or of a List, through grpc-go.
func (t *target) invoke(method string, body []byte) error {
	ctx, cancel := background()
	defer cancel()
	return t.invokeCtx(ctx, method, body)
}

func (t *target) invokeCtx(ctx context.Context, method string, body []byte) error {
	path := method
	if !strings.HasPrefix(path, "/") {
		path = prefix + method
	}
	st, err := t.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path, grpc.ForceCodec(codec{}))
	if err != nil {
		return err
	}
	if err := st.SendMsg(body); err != nil && err != io.EOF {
		return err
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	for {
		var out []byte
		if err := st.RecvMsg(&out); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// mustCode says that a call was not answered with one of the given codes.
func mustCode(what string, err error, want ...codes.Code) error {
	got := status.Code(err)
	for _, w := range want {
		if got == w {
			return nil
		}
	}
	return fmt.Errorf("%s: answered %v, expected %v (%v)", what, got, want, err)
}

// isSanitized looks for a sanitizer in the executable.
func isSanitized(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	libs, _ := f.ImportedLibraries()
	for _, l := range libs {
		if strings.HasPrefix(l, "libasan") || strings.HasPrefix(l, "libtsan") {
			return true
		}
	}
	syms, _ := f.Symbols()
	for _, s := range syms {
		if s.Name == "__asan_init" || s.Name == "__tsan_init" {
			return true
		}
	}
	return false
}

// attack is a test against the shared daemon.
type attack struct {
	name string
	f    func(*target) error
}

func main() {
	flag.Parse()
	logrus.SetOutput(io.Discard) // containerd's filters log what they cannot compile
	if *exe == "" {
		fmt.Fprintln(os.Stderr, "hostile: -exe is missing")
		os.Exit(2)
	}
	sanitized = isSanitized(*exe)
	if *isContent {
		contentMain()
	} else {
		snapshotsMain()
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 {
		os.Exit(1)
	}
}

// snapshotsMain runs all that is for a snapshotter.
func snapshotsMain() {
	attacks := append(append(append(append([]attack{}, messageAttacks...), filterAttacks...), streamAttacks...),
		connectionAttacks...)
	var t *target
	for _, a := range attacks {
		a := a
		run(a.name, func() error {
			if t == nil {
				var err error
				if t, err = newTarget(); err != nil {
					t = nil
					return fmt.Errorf("no daemon to attack: %v", err)
				}
			}
			t.resetPeak()
			err := a.f(t)
			var why skipError
			if errors.As(err, &why) {
				return err
			}
			if err == nil {
				err = t.unharmed()
			} else if err2 := t.unharmed(); err2 != nil {
				err = fmt.Errorf("%v\nafterwards: %v", err, err2)
			}
			if err != nil {
				// The next attack gets a fresh one.
				t.conn.Close()
				t.d.Kill()
				os.RemoveAll(t.dir)
				t = nil
			}
			return err
		})
	}
	if t != nil {
		run("the_daemon_stops_cleanly_after_all_attacks", func() error {
			t.conn.Close()
			if err := t.d.Stop(stopLimit); err != nil {
				return err
			}
			e, err := os.ReadDir(filepath.Join(t.d.Root, "snapshots"))
			if err != nil {
				return err
			}
			if len(e) != len(t.population) {
				return fmt.Errorf("%d directories for %d snapshots", len(e), len(t.population))
			}
			return nil
		})
		os.RemoveAll(t.dir)
	}
	runEach(surroundings)
}
