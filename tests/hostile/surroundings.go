// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"

	"../crash/daemon"
	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// surrounding is a test in which not the client but the machine misbehaves; each has its own daemon.
type surrounding struct {
	name string
	f    func(dir string) error
}

var surroundings = []surrounding{
	{"a_full_tmpfs_gives_resource_exhausted_and_loses_nothing", fullTmpfs},
	{"a_full_ext4_gives_resource_exhausted_and_loses_nothing", fullExt4},
	{"a_root_that_turns_read_only_still_answers_reads", turnsReadOnly},
	{"a_read_only_root_is_refused_at_start", startsReadOnly},
	{"out_of_descriptors_it_recovers", outOfDescriptors},
	{"a_second_daemon_on_the_same_root_is_refused", secondOnRoot},
	{"a_second_daemon_on_a_live_socket_is_refused", secondOnSocket},
	{"a_stale_socket_is_replaced", staleSocket},
	{"a_socket_path_that_is_something_else_is_refused_and_kept", occupiedSocket},
	{"a_socket_path_that_is_too_long_is_refused", longSocket},
	{"a_root_that_cannot_be_made_is_refused", impossibleRoot},
	{"a_corrupt_database_is_refused_and_nothing_deleted", corruptDatabase},
	{"a_database_of_a_newer_schema_is_refused_and_kept", newerSchema},
	{"a_root_that_was_moved_works_at_its_new_place", movedRoot},
	{"cleanup_never_follows_links_or_mounts_out_of_the_root", hostileTree},
	{"it_stops_cleanly_under_clients_that_never_end", stopUnderSiege},
}

func runEach(tests []surrounding) {
	for _, c := range tests {
		c := c
		run(c.name, func() error {
			dir, err := os.MkdirTemp(*tmp, "e")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			return c.f(dir)
		})
	}
}

// client starts a daemon and connects.
func client(c daemon.Config) (*daemon.Daemon, *grpc.ClientConn, api.SnapshotsClient, error) {
	d, err := start(c)
	if err != nil {
		return nil, nil, nil, err
	}
	conn, err := d.Dial()
	if err != nil {
		d.Kill()
		return nil, nil, nil, err
	}
	return d, conn, api.NewSnapshotsClient(conn), nil
}

// refusedStart starts a daemon that must end by itself with a message and a code that is not 0.
func refusedStart(c daemon.Config) (log string, err error) {
	d, err := daemon.Start(c)
	if err != nil {
		return "", err
	}
	switch err := d.WaitReady(startLimit); err {
	case daemon.ErrExited:
	case nil:
		d.Kill()
		return "", fmt.Errorf("it started, and should have refused")
	default:
		d.Kill()
		return "", err
	}
	if d.ExitCode() <= 0 {
		return "", fmt.Errorf("exit code %d", d.ExitCode())
	}
	log = d.LogTail(5)
	if strings.TrimSpace(log) == "" {
		return "", fmt.Errorf("it ended without a message")
	}
	return log, d.Sanitizer()
}

func command(name string, arg ...string) error {
	if out, err := exec.Command(name, arg...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %v: %s", name, arg, err, out)
	}
	return nil
}

func unmount(dir string) {
	if err := syscall.Unmount(dir, 0); err != nil {
		syscall.Unmount(dir, syscall.MNT_DETACH)
	}
}

// ext4 mounts a small file system of its own.
func ext4(dir string, sizeMiB int) (string, error) {
	img, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0755); err != nil {
		return "", err
	}
	f, err := os.Create(img)
	if err != nil {
		return "", err
	}
	f.Close()
	if err := os.Truncate(img, int64(sizeMiB)<<20); err != nil {
		return "", err
	}
	if err := command("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", img); err != nil {
		return "", skipError(err.Error())
	}
	if err := command("mount", "-o", "loop,errors=remount-ro", img, mnt); err != nil {
		return "", skipError(err.Error())
	}
	return mnt, nil
}

func fullTmpfs(dir string) error {
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0755); err != nil {
		return err
	}
	if err := command("mount", "-t", "tmpfs", "-o", "size=12m", "none", mnt); err != nil {
		return skipError(err.Error())
	}
	defer unmount(mnt)
	return full(dir, mnt)
}

func fullExt4(dir string) error {
	mnt, err := ext4(dir, 24)
	if err != nil {
		return err
	}
	defer unmount(mnt)
	return full(dir, mnt)
}

// fillUp writes a file until no byte more fits. What a sync has put on disk may have taken less room than was
// set aside for it.
func fillUp(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0600)
	if err != nil {
		return err
	}
	defer f.Close()
	for wrote := true; wrote; {
		wrote = false
		for _, n := range []int{1 << 20, 64 << 10, 4096, 512, 1} {
			b := bytes.Repeat([]byte("x"), n)
			for err == nil {
				if _, err = f.Write(b); err == nil {
					wrote = true
				}
			}
			if !errors.Is(err, syscall.ENOSPC) {
				return err
			}
			err = nil
		}
		if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return nil
}

func full(dir, mnt string) error {
	c := daemon.Config{Exe: *exe, Dir: dir, Root: filepath.Join(mnt, "root")}
	d, conn, a, err := client(c)
	if err != nil {
		return err
	}
	defer func() { d.Kill() }()
	defer func() { conn.Close() }()
	ctx, cancel := background()
	defer cancel()
	if err := ordinary(a); err != nil {
		return err
	}
	big := map[string]string{"big": strings.Repeat("v", 4000)}
	there := map[string]bool{}
	refused := map[string]int{}
	for i := 0; i < 20; i++ {
		key := fmt.Sprintf("before %d", i)
		if _, err := a.Prepare(ctx, &api.PrepareSnapshotRequest{Key: key}); err != nil {
			return err
		}
		there[key] = true
	}
	ballast := filepath.Join(mnt, "ballast")
	if err := fillUp(ballast); err != nil {
		return err
	}
	// The database's log and directories in stock may still have room: each call is answered with OK or
	// with RESOURCE_EXHAUSTED, and the latter must come.
	for i := 0; i < 3000 && (refused["Prepare"] < 20 || refused["Commit"] < 5 || refused["Update"] < 5); i++ {
		key := fmt.Sprintf("full %d", i)
		_, err := a.Prepare(ctx, &api.PrepareSnapshotRequest{Key: key, Labels: big})
		if err := mustCode("Prepare on a full disk", err, codes.OK, codes.ResourceExhausted); err != nil {
			return err
		}
		if err == nil {
			there[key] = true
		} else {
			refused["Prepare"]++
			if _, err := a.Stat(ctx, &api.StatSnapshotRequest{Key: key}); status.Code(err) != codes.NotFound {
				return fmt.Errorf("after a refused Prepare, Stat answers %v", err)
			}
		}
		from := fmt.Sprintf("before %d", i%20)
		to := from + " done"
		if there[from] {
			_, err = a.Commit(ctx, &api.CommitSnapshotRequest{Name: to, Key: from, Labels: big})
			if err := mustCode("Commit on a full disk", err, codes.OK, codes.ResourceExhausted); err != nil {
				return err
			}
			if err == nil {
				delete(there, from)
				there[to] = true
			} else {
				refused["Commit"]++
			}
		}
		for k := range there {
			_, err = a.Update(ctx, &api.UpdateSnapshotRequest{Info: api.Info{Name: k, Labels: big}})
			if err := mustCode("Update on a full disk", err, codes.OK, codes.ResourceExhausted); err != nil {
				return err
			}
			if err != nil {
				refused["Update"]++
			}
			break
		}
		if i%100 == 0 {
			// What was freed meanwhile is taken, too.
			if err := fillUp(ballast); err != nil {
				return err
			}
		}
	}
	if refused["Prepare"] == 0 {
		return fmt.Errorf("the disk is full, and no Prepare was refused")
	}
	agree := func(when string) error {
		seen, err := list(ctx, a)
		if err != nil {
			return fmt.Errorf("List %s: %v", when, err)
		}
		got := map[string]bool{}
		for k := range seen {
			got[k] = true
		}
		if !reflect.DeepEqual(got, there) {
			return fmt.Errorf("%s: %d snapshots, %d were answered", when, len(got), len(there))
		}
		for k, i := range seen {
			if i.Kind == api.KindCommitted {
				continue
			}
			m, err := a.Mounts(ctx, &api.MountsRequest{Key: k})
			if err != nil {
				return fmt.Errorf("Mounts %q %s: %v", k, when, err)
			}
			if err := mustBeDir(m.Mounts[0].Source); err != nil {
				return fmt.Errorf("%s: %v", when, err)
			}
		}
		return nil
	}
	if err := agree("while full"); err != nil {
		return err
	}
	_, err = a.Cleanup(ctx, &api.CleanupRequest{})
	if err := mustCode("Cleanup on a full disk", err, codes.OK, codes.ResourceExhausted); err != nil {
		return err
	}
	for k := range there {
		_, err := a.Remove(ctx, &api.RemoveSnapshotRequest{Key: k})
		if err := mustCode("Remove on a full disk", err, codes.OK, codes.ResourceExhausted); err != nil {
			return err
		}
		if err == nil {
			delete(there, k)
		}
		if len(there) < 10 {
			break
		}
	}
	// Killed while full, it starts again, or nobody could ask it to remove anything; also where what the lock says
	// of its holder has to be written anew.
	conn.Close()
	d.Kill()
	if err := os.Truncate(filepath.Join(c.Root, "lock"), 0); err != nil {
		return err
	}
	if err := fillUp(ballast); err != nil {
		return err
	}
	if d, err = start(c); err != nil {
		return fmt.Errorf("start on a full disk: %v", err)
	}
	if conn, err = d.Dial(); err != nil {
		return err
	}
	a = api.NewSnapshotsClient(conn)
	if err := agree("started while full"); err != nil {
		return err
	}
	for k := range there {
		if _, err := a.Remove(ctx, &api.RemoveSnapshotRequest{Key: k}); err != nil {
			return fmt.Errorf("Remove on a full disk, after a start: %v", err)
		}
		delete(there, k)
		break
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := agree("with room again"); err != nil {
		return err
	}
	if err := ordinary(a); err != nil {
		return fmt.Errorf("with room again: %v", err)
	}
	conn.Close()
	if err := d.Stop(stopLimit); err != nil {
		return err
	}
	e, err := os.ReadDir(filepath.Join(c.Root, "snapshots"))
	if err != nil {
		return err
	}
	if len(e) != len(there) {
		return fmt.Errorf("after Cleanup and a clean stop: %d directories for %d snapshots", len(e), len(there))
	}
	return nil
}

func turnsReadOnly(dir string) error {
	mnt, err := ext4(dir, 24)
	if err != nil {
		return err
	}
	defer unmount(mnt)
	c := daemon.Config{Exe: *exe, Dir: dir, Root: filepath.Join(mnt, "root")}
	d, conn, a, err := client(c)
	if err != nil {
		return err
	}
	defer d.Kill()
	defer conn.Close()
	ctx, cancel := background()
	defer cancel()
	if _, err := a.Prepare(ctx, &api.PrepareSnapshotRequest{Key: "kept"}); err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(mnt, &st); err != nil {
		return err
	}
	dev, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", st.Dev>>8&0xfff, st.Dev&0xff))
	if err != nil {
		return skipError(err.Error())
	}
	if err := os.WriteFile("/sys/fs/ext4/"+filepath.Base(dev)+"/trigger_fs_error", []byte("1"), 0); err != nil {
		return skipError("cannot make ext4 fail: " + err.Error())
	}
	if err := os.WriteFile(filepath.Join(mnt, "x"), nil, 0600); err == nil {
		return skipError("ext4 did not turn read-only")
	}
	for i := 0; i < 100; i++ {
		_, err := a.Prepare(ctx, &api.PrepareSnapshotRequest{Key: fmt.Sprintf("lost %d", i)})
		switch status.Code(err) {
		case codes.OK, codes.NotFound, codes.AlreadyExists, codes.InvalidArgument, codes.Unknown:
			return fmt.Errorf("Prepare on a read-only file system: %v", err)
		}
	}
	if _, err := a.Remove(ctx, &api.RemoveSnapshotRequest{Key: "kept"}); err == nil {
		return fmt.Errorf("Remove on a read-only file system succeeded")
	}
	seen, err := list(ctx, a)
	if err != nil || len(seen) != 1 || seen["kept"] == nil {
		return fmt.Errorf("List on a read-only file system: %v %v", seen, err)
	}
	if _, err := a.Mounts(ctx, &api.MountsRequest{Key: "kept"}); err != nil {
		return fmt.Errorf("Mounts on a read-only file system: %v", err)
	}
	conn.Close()
	// It cannot tidy up, and may say so by its exit code; but it must end.
	if err := d.Terminate(stopLimit); err != nil {
		return err
	}
	return d.Sanitizer()
}

func startsReadOnly(dir string) error {
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0755); err != nil {
		return err
	}
	if err := command("mount", "-t", "tmpfs", "none", mnt); err != nil {
		return skipError(err.Error())
	}
	defer unmount(mnt)
	c := daemon.Config{Exe: *exe, Dir: dir, Root: filepath.Join(mnt, "root")}
	d, err := start(c)
	if err != nil {
		return err
	}
	if err := d.Stop(stopLimit); err != nil {
		return err
	}
	if err := command("mount", "-o", "remount,ro", mnt); err != nil {
		return err
	}
	log, err := refusedStart(c)
	if err != nil {
		return err
	}
	if !strings.Contains(strings.ToLower(log), "read-only") {
		return fmt.Errorf("the message does not say that the file system is read-only: %s", log)
	}
	c.Root = filepath.Join(mnt, "other")
	_, err = refusedStart(c)
	return err
}

func outOfDescriptors(dir string) error {
	const limit = 80
	d, conn, a, err := client(daemon.Config{Exe: *exe, Dir: dir, Wrap: []string{"prlimit", fmt.Sprintf("--nofile=%d:%d", limit, limit)}})
	if err != nil {
		return err
	}
	defer d.Kill()
	defer conn.Close()
	if err := ordinary(a); err != nil {
		return fmt.Errorf("%v\n%s", err, d.LogTail(10))
	}
	before := d.FDs()
	var open []net.Conn
	for i := 0; i < 3*limit; i++ {
		c, err := net.DialTimeout("unix", d.Addr, time.Second)
		if err != nil {
			break // the queue of the socket is full: as good as refused
		}
		open = append(open, c)
		io.WriteString(c, http2.ClientPreface)
		http2.NewFramer(c, nil).WriteSettings()
	}
	if err := eventually(func() string { return fmt.Sprintf("%d descriptors in use", d.FDs()) },
		func() bool { return d.FDs() >= limit-2 || d.FDs() >= before+len(open) }); err != nil {
		closeAll(open)
		return fmt.Errorf("did not come near the limit: %v", err)
	}
	ctx, cancel := background()
	defer cancel()
	for i := 0; i < 200; i++ {
		key := fmt.Sprintf("few %d", i)
		_, err := a.Prepare(ctx, &api.PrepareSnapshotRequest{Key: key})
		if err := mustCode("Prepare without descriptors", err, codes.OK, codes.ResourceExhausted, codes.Unavailable, codes.Internal); err != nil {
			closeAll(open)
			return err
		}
		if err == nil {
			if _, err := a.Mounts(ctx, &api.MountsRequest{Key: key}); err != nil {
				closeAll(open)
				return fmt.Errorf("Mounts without descriptors: %v", err)
			}
		} else if _, err := a.Stat(ctx, &api.StatSnapshotRequest{Key: key}); status.Code(err) != codes.NotFound {
			closeAll(open)
			return fmt.Errorf("Stat after a refused Prepare: %v", err)
		}
		_, err = a.Remove(ctx, &api.RemoveSnapshotRequest{Key: key})
		if err := mustCode("Remove without descriptors", err, codes.OK, codes.NotFound, codes.ResourceExhausted, codes.Internal); err != nil {
			closeAll(open)
			return err
		}
	}
	closeAll(open)
	n := 0
	if err := eventually(func() string { return fmt.Sprintf("%d descriptors are open, %d before", n, before) },
		func() bool { n = d.FDs(); return n <= before+2 }); err != nil {
		return err
	}
	if err := ordinary(a); err != nil {
		return fmt.Errorf("with descriptors again: %v (alive: %v)\n%s", err, d.Alive(), d.LogTail(10))
	}
	// And it takes new connections again.
	c2, err := d.Dial()
	if err != nil {
		return err
	}
	err = ordinary(api.NewSnapshotsClient(c2))
	c2.Close()
	conn.Close()
	if err != nil {
		return err
	}
	return d.Stop(stopLimit)
}

func secondOnRoot(dir string) error {
	d, conn, a, err := client(daemon.Config{Exe: *exe, Dir: dir})
	if err != nil {
		return err
	}
	defer d.Kill()
	defer conn.Close()
	other := filepath.Join(dir, "other")
	if err := os.Mkdir(other, 0755); err != nil {
		return err
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(d.Root, link); err != nil {
		return err
	}
	for _, root := range []string{d.Root, link} {
		log, err := refusedStart(daemon.Config{Exe: *exe, Dir: other, Root: root})
		if err != nil {
			return err
		}
		if !strings.Contains(log, root) {
			return fmt.Errorf("the message does not name the root: %s", log)
		}
	}
	if err := ordinary(a); err != nil {
		return err
	}
	conn.Close()
	return d.Stop(stopLimit)
}

func secondOnSocket(dir string) error {
	d, conn, _, err := client(daemon.Config{Exe: *exe, Dir: dir})
	if err != nil {
		return err
	}
	defer d.Kill()
	conn.Close()
	if _, err := refusedStart(daemon.Config{Exe: *exe, Dir: dir, Root: filepath.Join(dir, "root2")}); err != nil {
		return err
	}
	conn, err = d.Dial()
	if err != nil {
		return fmt.Errorf("the first daemon lost its socket: %v", err)
	}
	err = ordinary(api.NewSnapshotsClient(conn))
	conn.Close()
	if err != nil {
		return err
	}
	return d.Stop(stopLimit)
}

func staleSocket(dir string) error {
	c := daemon.Config{Exe: *exe, Dir: dir}
	d, err := start(c)
	if err != nil {
		return err
	}
	d.Kill()
	if _, err := os.Lstat(d.Addr); err != nil {
		return fmt.Errorf("the test needs a stale socket: %v", err)
	}
	d, conn, a, err := client(c)
	if err != nil {
		return err
	}
	defer d.Kill()
	err = ordinary(a)
	conn.Close()
	if err != nil {
		return err
	}
	return d.Stop(stopLimit)
}

func occupiedSocket(dir string) error {
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0644); err != nil {
		return err
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		return err
	}
	sub := filepath.Join(dir, "dir")
	if err := os.Mkdir(sub, 0755); err != nil {
		return err
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0644); err != nil {
		return err
	}
	for _, p := range []string{file, link, sub, fifo, filepath.Join(file, "below")} {
		log, err := refusedStart(daemon.Config{Exe: *exe, Dir: dir, Addr: p})
		if err != nil {
			return fmt.Errorf("%s: %v", filepath.Base(p), err)
		}
		if !strings.Contains(log, strings.TrimSuffix(p, "/below")) {
			return fmt.Errorf("the message does not name %s: %s", p, log)
		}
	}
	if b, err := os.ReadFile(link); err != nil || string(b) != "precious" {
		return fmt.Errorf("the file in the way was changed: %q %v", b, err)
	}
	return nil
}

func longSocket(dir string) error {
	long := filepath.Join(dir, strings.Repeat("s", 120))
	log, err := refusedStart(daemon.Config{Exe: *exe, Dir: dir, Addr: long})
	if err != nil {
		return err
	}
	if !strings.Contains(log, "long") {
		return fmt.Errorf("the message does not say that the path is too long: %s", log)
	}
	return nil
}

func impossibleRoot(dir string) error {
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0644); err != nil {
		return err
	}
	for _, root := range []string{file, filepath.Join(file, "root"), "/proc/root-of-lighter", "/sys/root-of-lighter", filepath.Join(dir, strings.Repeat("r", 300))} {
		if _, err := refusedStart(daemon.Config{Exe: *exe, Dir: dir, Root: root}); err != nil {
			return fmt.Errorf("root %s: %v", root, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		return fmt.Errorf("the file in the way was changed: %q %v", b, err)
	}
	return nil
}

// stored makes a root with snapshots and a file in each, and stops the daemon.
func stored(dir string) (daemon.Config, error) {
	c := daemon.Config{Exe: *exe, Dir: dir, Root: filepath.Join(dir, "root")}
	d, conn, a, err := client(c)
	if err != nil {
		return c, err
	}
	defer d.Kill()
	defer conn.Close()
	ctx, cancel := background()
	defer cancel()
	for i := 0; i < 30; i++ {
		key := fmt.Sprintf("key %d", i)
		r, err := a.Prepare(ctx, &api.PrepareSnapshotRequest{Key: key, Labels: map[string]string{"l": strings.Repeat("v", 2000)}})
		if err != nil {
			return c, err
		}
		if err := os.WriteFile(filepath.Join(r.Mounts[0].Source, "file"), []byte(key), 0644); err != nil {
			return c, err
		}
		if i%2 == 0 {
			if _, err := a.Commit(ctx, &api.CommitSnapshotRequest{Name: key + " done", Key: key}); err != nil {
				return c, err
			}
		}
	}
	conn.Close()
	return c, d.Stop(stopLimit)
}

// fingerprint is a digest of everything below a directory but what sqlite and the lock may touch on opening.
func fingerprint(dir string) (string, error) {
	h := sha256.New()
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		switch fi.Name() {
		case "lock", "metadata.db-shm", "metadata.db-wal":
			return nil
		}
		fmt.Fprintf(h, "%q %v\n", p, fi.Mode())
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			h.Write(b)
		}
		return nil
	})
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// usedBytes is how much of a database file its pages take, as its header says.
// Source: sqlite, "Database File Format", 1.3.
func usedBytes(b []byte) int {
	return int(binary.BigEndian.Uint16(b[16:])) * int(binary.BigEndian.Uint32(b[28:]))
}

func corruptDatabase(dir string) error {
	for what, spoil := range map[string]func([]byte) []byte{
		"noise": func(b []byte) []byte { return bytes.Repeat([]byte("noise "), len(b)/6) },
		"its first page wiped": func(b []byte) []byte {
			copy(b, make([]byte, 4096))
			return b
		},
		// The file grows in large steps: what lies behind the last page in use may well be missing.
		"cut in the middle":        func(b []byte) []byte { return b[:usedBytes(b)/2/4096*4096] },
		"cut after the first page": func(b []byte) []byte { return b[:4096] },
		"emptied":                  func(b []byte) []byte { return nil },
		"another program's": func(b []byte) []byte {
			f := filepath.Join(dir, "foreign.db")
			os.Remove(f)
			exec.Command("sqlite3", f, "CREATE TABLE snapshots(a, b); INSERT INTO snapshots VALUES (1, 2);").Run()
			b, _ = os.ReadFile(f)
			return b
		},
		"pages overwritten": func(b []byte) []byte {
			for at := 4096; at+4096 <= len(b); at += 4096 {
				copy(b[at:], bytes.Repeat([]byte{0xa5}, 4096))
			}
			return b
		},
	} {
		sub, err := os.MkdirTemp(dir, "c")
		if err != nil {
			return err
		}
		c, err := stored(sub)
		if err != nil {
			return err
		}
		db := filepath.Join(c.Root, "metadata.db")
		b, err := os.ReadFile(db)
		if err != nil {
			return err
		}
		if err := os.WriteFile(db, spoil(b), 0600); err != nil {
			return err
		}
		// An empty file is a new database, in which the tables are made before the layers are looked at.
		precious := c.Root
		if what == "emptied" {
			precious = filepath.Join(c.Root, "snapshots")
		}
		before, err := fingerprint(precious)
		if err != nil {
			return err
		}
		// Refused for good: a second start finds what the first one left.
		for i := 0; i < 2; i++ {
			log, err := refusedStart(c)
			if err != nil {
				return fmt.Errorf("a database that is %s, start %d: %v", what, i+1, err)
			}
			if !strings.Contains(log, "metadata.db") {
				return fmt.Errorf("a database that is %s: the message does not name it: %s", what, log)
			}
		}
		after, err := fingerprint(precious)
		if err != nil {
			return err
		}
		if before != after {
			return fmt.Errorf("a database that is %s: the root was changed", what)
		}
	}
	return nil
}

func newerSchema(dir string) error {
	c, err := stored(dir)
	if err != nil {
		return err
	}
	db := filepath.Join(c.Root, "metadata.db")
	if err := command("sqlite3", db, "PRAGMA user_version=999;"); err != nil {
		return err
	}
	before, err := fingerprint(c.Root)
	if err != nil {
		return err
	}
	log, err := refusedStart(c)
	if err != nil {
		return err
	}
	if !strings.Contains(log, "999") {
		return fmt.Errorf("the message does not name the version: %s", log)
	}
	after, err := fingerprint(c.Root)
	if err == nil && before != after {
		err = fmt.Errorf("the root was changed")
	}
	return err
}

func movedRoot(dir string) error {
	c, err := stored(dir)
	if err != nil {
		return err
	}
	moved := filepath.Join(dir, "moved")
	if err := os.Rename(c.Root, moved); err != nil {
		return err
	}
	c.Root = moved
	d, conn, a, err := client(c)
	if err != nil {
		return err
	}
	defer d.Kill()
	defer conn.Close()
	ctx, cancel := background()
	defer cancel()
	for i := 0; i < 30; i++ {
		key := fmt.Sprintf("key %d", i)
		path := ""
		if i%2 == 0 {
			r, err := a.View(ctx, &api.ViewSnapshotRequest{Key: "view " + key, Parent: key + " done"})
			if err != nil {
				return err
			}
			path = r.Mounts[0].Source
		} else {
			r, err := a.Mounts(ctx, &api.MountsRequest{Key: key})
			if err != nil {
				return err
			}
			path = r.Mounts[0].Source
		}
		if !strings.HasPrefix(path, moved+"/") {
			return fmt.Errorf("%q is mounted from %s, the root is %s", key, path, moved)
		}
		if b, err := os.ReadFile(filepath.Join(path, "file")); err != nil || string(b) != key {
			return fmt.Errorf("the file of %q: %q %v", key, b, err)
		}
	}
	if err := ordinary(a); err != nil {
		return err
	}
	conn.Close()
	return d.Stop(stopLimit)
}

func hostileTree(dir string) error {
	victim := filepath.Join(dir, "victim")
	if err := os.MkdirAll(filepath.Join(victim, "sub"), 0755); err != nil {
		return err
	}
	precious := []string{filepath.Join(victim, "file"), filepath.Join(victim, "sub", "file")}
	for _, f := range precious {
		if err := os.WriteFile(f, []byte("precious"), 0644); err != nil {
			return err
		}
	}
	unhurt := func(when string) error {
		for _, f := range precious {
			if b, err := os.ReadFile(f); err != nil || string(b) != "precious" {
				return fmt.Errorf("%s: %s outside the root is hurt: %q %v", when, f, b, err)
			}
		}
		return nil
	}
	c, err := stored(dir)
	if err != nil {
		return err
	}
	snaps := filepath.Join(c.Root, "snapshots")
	plant := func(n int) error {
		base := func(name string) string { return filepath.Join(snaps, fmt.Sprintf("%d%s", n, name)) }
		if err := os.Symlink(victim, base("1")); err != nil {
			return err
		}
		if err := os.MkdirAll(base("2"), 0755); err != nil {
			return err
		}
		if err := os.Symlink(victim, filepath.Join(c.Root, "work", fmt.Sprintf("%d2", n))); err != nil {
			return err
		}
		if err := os.Symlink(victim, filepath.Join(base("2"), "link")); err != nil {
			return err
		}
		if err := os.Symlink("..", filepath.Join(base("2"), "up")); err != nil {
			return err
		}
		if err := os.WriteFile(base("3"), []byte("a file"), 0644); err != nil {
			return err
		}
		if err := os.MkdirAll(base("x-not-a-number"), 0); err != nil {
			return err
		}
		if err := os.MkdirAll(base("4/a\nb/\xff\xfe"), 0); err != nil {
			return err
		}
		// Deeper than a path may be long.
		cwd, err := os.Getwd()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(base("5"), 0755); err != nil {
			return err
		}
		if err := os.Chdir(base("5")); err != nil {
			return err
		}
		defer os.Chdir(cwd)
		name := strings.Repeat("d", 200)
		for i := 0; i < 60; i++ {
			if err := os.Mkdir(name, 0755); err != nil {
				return err
			}
			if err := os.Chdir(name); err != nil {
				return err
			}
		}
		return nil
	}
	if err := plant(9100); err != nil {
		return err
	}
	d, conn, a, err := client(c)
	if err != nil {
		return err
	}
	defer d.Kill()
	defer conn.Close()
	if err := unhurt("after the start"); err != nil {
		return err
	}
	if err := plant(9200); err != nil {
		return err
	}
	ctx, cancel := background()
	defer cancel()
	if _, err := a.Cleanup(ctx, &api.CleanupRequest{}); err != nil {
		return fmt.Errorf("Cleanup: %v", err)
	}
	if err := unhurt("after Cleanup"); err != nil {
		return err
	}
	// Also in a snapshot that had a row, with a mount that somebody forgot in it.
	r, err := a.Prepare(ctx, &api.PrepareSnapshotRequest{Key: "held"})
	if err != nil {
		return err
	}
	mnt := filepath.Join(r.Mounts[0].Source, "mnt")
	if err := os.Mkdir(mnt, 0755); err != nil {
		return err
	}
	if err := os.Symlink(victim, filepath.Join(r.Mounts[0].Source, "link")); err != nil {
		return err
	}
	if err := syscall.Mount(victim, mnt, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	mounted := true
	defer func() {
		if mounted {
			unmount(mnt)
		}
	}()
	if _, err := a.Remove(ctx, &api.RemoveSnapshotRequest{Key: "held"}); err != nil {
		return fmt.Errorf("Remove: %v", err)
	}
	if _, err := a.Cleanup(ctx, &api.CleanupRequest{}); err != nil && status.Code(err) == codes.Unknown {
		return fmt.Errorf("Cleanup: %v", err)
	}
	if err := unhurt("after Cleanup of a snapshot with a mount in it"); err != nil {
		return err
	}
	unmount(mnt)
	mounted = false
	if _, err := a.Cleanup(ctx, &api.CleanupRequest{}); err != nil {
		return fmt.Errorf("Cleanup: %v", err)
	}
	seen, err := list(ctx, a)
	if err != nil {
		return err
	}
	conn.Close()
	if err := d.Stop(stopLimit); err != nil {
		return err
	}
	e, err := os.ReadDir(snaps)
	if err != nil {
		return err
	}
	if len(e) != len(seen) {
		return fmt.Errorf("%d entries for %d snapshots after Cleanup and a stop: %v", len(e), len(seen), e)
	}
	return nil
}

func stopUnderSiege(dir string) error {
	t, err := newTarget()
	if err != nil {
		return err
	}
	defer os.RemoveAll(t.dir)
	defer t.d.Kill()
	defer t.conn.Close()
	if err := fill(t, 300); err != nil {
		return err
	}
	var open []io.Closer
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for i := 0; i < 60; i++ {
		r, err := dialRaw(t.d.Addr, true, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		if err != nil {
			return err
		}
		open = append(open, r)
		// A List that is never read, a call that is never finished, a call with half a message.
		id, _ := r.open(false, grpcHeaders(prefix+"List"))
		r.data(id, true, plain(nil))
		r.open(false, grpcHeaders(prefix+"Prepare"))
		id, _ = r.open(false, grpcHeaders(prefix+"Prepare"))
		r.data(id, false, []byte{0, 0, 0})
		c, err := net.Dial("unix", t.d.Addr)
		if err != nil {
			return err
		}
		open = append(open, c)
		if i%2 == 0 {
			io.WriteString(c, "PRI * HT")
		}
	}
	if err := t.ordinary(); err != nil {
		return err
	}
	return t.d.Stop(stopLimit)
}
