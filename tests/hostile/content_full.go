// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"../crash/daemon"
	content "github.com/containerd/containerd/api/services/content/v1"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var storeSurroundings = []surrounding{
	{"a_full_tmpfs_keeps_ingests_and_lets_deletes_make_room", onTmpfs(fullStore)},
	{"a_full_ext4_keeps_ingests_and_lets_deletes_make_room", onExt4(fullStore)},
	{"a_store_that_was_stopped_starts_on_a_full_tmpfs_and_deletes", onTmpfs(stoppedThenFull)},
	{"a_store_that_was_stopped_starts_on_a_full_ext4_and_deletes", onExt4(stoppedThenFull)},
	{"a_store_that_was_killed_starts_on_a_full_tmpfs_and_deletes", onTmpfs(killedThenFull)},
	{"a_store_that_was_killed_starts_on_a_full_ext4_and_deletes", onExt4(killedThenFull)},
	{"a_full_store_takes_labels_or_says_that_there_is_no_room", onExt4(fullOfLabels)},
	{"references_of_all_kinds_survive_kills_and_stops", refsSurvive},
}

func onTmpfs(f func(dir, mnt string) error) func(string) error {
	return func(dir string) error {
		mnt := filepath.Join(dir, "mnt")
		if err := os.Mkdir(mnt, 0755); err != nil {
			return err
		}
		if err := command("mount", "-t", "tmpfs", "-o", "size=40m", "none", mnt); err != nil {
			return skipError(err.Error())
		}
		defer unmount(mnt)
		return f(dir, mnt)
	}
}

func onExt4(f func(dir, mnt string) error) func(string) error {
	return func(dir string) error {
		mnt, err := ext4(dir, 48)
		if err != nil {
			return err
		}
		defer unmount(mnt)
		return f(dir, mnt)
	}
}

// small is a store on a small file system.
type small struct {
	config  daemon.Config
	d       *daemon.Daemon
	conn    *grpc.ClientConn
	api     content.ContentClient
	blobs   map[digest.Digest][]byte
	ballast string
}

func newSmall(dir, mnt string) (*small, error) {
	s := &small{config: daemon.Config{Exe: *exe, Dir: dir, Root: filepath.Join(mnt, "root")}, blobs: map[digest.Digest][]byte{},
		ballast: filepath.Join(mnt, "ballast")}
	return s, s.start()
}

func (s *small) start() (err error) {
	s.d, s.conn, s.api, err = dialStore(s.config)
	return err
}

func (s *small) kill() {
	if s.d != nil {
		s.conn.Close()
		s.d.Kill()
	}
}

// died waits for a daemon that seems to be gone, and returns the end of its log.
func died(d *daemon.Daemon) string {
	if d.WaitExit(patience) == nil {
		return fmt.Sprintf("the daemon died, exit code %d\n%s", d.ExitCode(), d.LogTail(60))
	}
	return d.LogTail(10)
}

func (s *small) put(ctx context.Context, seed int64, n int) (digest.Digest, error) {
	data := pattern(seed, n)
	d, err := put(ctx, s.api, fmt.Sprintf("put %d", seed), data, map[string]string{"seed": fmt.Sprint(seed)})
	if err == nil {
		s.blobs[d] = data
	}
	return d, err
}

func (s *small) remove(ctx context.Context, d digest.Digest) error {
	_, err := s.api.Delete(ctx, &content.DeleteContentRequest{Digest: d})
	if err == nil {
		delete(s.blobs, d)
	}
	return err
}

// agree checks that the store holds exactly what was acknowledged, and that what only reads works.
func (s *small) agree(ctx context.Context, when string, ingests map[string]int64) error {
	seen, err := listBlobs(ctx, s.api)
	if err != nil {
		return fmt.Errorf("%s: List: %v", when, err)
	}
	if len(seen) != len(s.blobs) {
		return fmt.Errorf("%s: %d blobs, %d were acknowledged", when, len(seen), len(s.blobs))
	}
	for d, data := range s.blobs {
		if r, err := s.api.Info(ctx, &content.InfoRequest{Digest: d}); err != nil || r.Info.Size_ != int64(len(data)) || r.Info.Labels["seed"] == "" {
			return fmt.Errorf("%s: Info: %v %v", when, r, err)
		}
		if got, err := readBlob(ctx, s.api, d, 0, 0); err != nil || !bytes.Equal(got, data) {
			return fmt.Errorf("%s: Read: %d bytes of %d: %v", when, len(got), len(data), err)
		}
	}
	r, err := s.api.ListStatuses(ctx, &content.ListStatusesRequest{})
	if err != nil {
		return fmt.Errorf("%s: ListStatuses: %v", when, err)
	}
	if len(r.Statuses) != len(ingests) {
		return fmt.Errorf("%s: %d ingests, expected %d: %v\n%s", when, len(r.Statuses), len(ingests), r.Statuses, s.d.LogTail(10))
	}
	for ref, offset := range ingests {
		if r, err := s.api.Status(ctx, &content.StatusRequest{Ref: ref}); err != nil || r.Status.Offset != offset {
			return fmt.Errorf("%s: Status of %q: %v %v, expected offset %d", when, ref, r, err, offset)
		}
	}
	return nil
}

// writeUntilFull sends data from where the ingest stands until there is no room.
func writeUntilFull(ctx context.Context, a content.ContentClient, ref string, data []byte, chunk int, total int64) (int64, error) {
	w, err := openWrite(ctx, a, ref, total)
	if err != nil {
		return 0, fmt.Errorf("open: %v", err)
	}
	defer w.cancel()
	for at := w.offset; at < int64(len(data)); at = w.offset {
		n := int64(chunk)
		if n > int64(len(data))-at {
			n = int64(len(data)) - at
		}
		if _, err = w.write(at, data[at:at+n]); err != nil {
			break
		}
	}
	if status.Code(err) != codes.ResourceExhausted {
		return 0, fmt.Errorf("writing %d bytes on a full disk ended with %v, expected ResourceExhausted", len(data), err)
	}
	r, err := a.Status(ctx, &content.StatusRequest{Ref: ref})
	if err != nil {
		return 0, fmt.Errorf("Status of an ingest that has no room: %v", err)
	}
	// What was acknowledged is held, and some of what was not may be.
	if r.Status.Offset < w.offset || r.Status.Offset > w.offset+int64(chunk) {
		return 0, fmt.Errorf("Status of an ingest that has no room: %v, acknowledged were %d", r.Status, w.offset)
	}
	return r.Status.Offset, nil
}

// finishIngest goes on with an ingest at the offset that it must have, and commits it.
func finishIngest(ctx context.Context, a content.ContentClient, ref string, data []byte, offset int64) error {
	var w *writing
	err := eventually(func() string { return "its last stream does not end" }, func() bool {
		var err error
		w, err = openWrite(ctx, a, ref, int64(len(data)))
		return err == nil
	})
	if err != nil {
		return err
	}
	defer w.cancel()
	if w.offset != offset || w.digest != sum(data[:offset]) {
		return fmt.Errorf("it goes on at %d with %s, expected %d and %s", w.offset, w.digest, offset, sum(data[:offset]))
	}
	for at := offset; at < int64(len(data)); at = w.offset {
		n := int64(len(data)) - at
		if n > 1<<20 {
			n = 1 << 20
		}
		if _, err := w.write(at, data[at:at+n]); err != nil {
			return fmt.Errorf("WRITE at %d: %v", at, err)
		}
	}
	return w.commit(sum(data), map[string]string{"seed": "resumed"})
}

// begun writes the first bytes of an ingest; one that has none might find no room to be written down at all.
func begun(ctx context.Context, a content.ContentClient, ref string, data []byte) error {
	w, err := openWrite(ctx, a, ref, 0)
	if err != nil {
		return err
	}
	if _, err := w.write(0, data); err != nil {
		return err
	}
	return w.end()
}

func fullStore(dir, mnt string) error {
	ctx, cancel := background()
	defer cancel()
	s, err := newSmall(dir, mnt)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	var blobs []digest.Digest
	for i := int64(0); i < 6; i++ {
		d, err := s.put(ctx, i, 2<<20)
		if err != nil {
			return err
		}
		blobs = append(blobs, d)
	}
	// Two writers at a time, of which one tells how much it will be, so that room is reserved for it.
	one, two := pattern(100, 30<<20), pattern(101, 30<<20)
	offsets := map[string]int64{}
	if err := begun(ctx, s.api, "two", two[:1000]); err != nil {
		return err
	}
	type end struct {
		ref    string
		offset int64
		err    error
	}
	ends := make(chan end)
	go func() {
		n, err := writeUntilFull(ctx, s.api, "one", one, 1<<20, int64(len(one)))
		ends <- end{"one", n, err}
	}()
	go func() {
		n, err := writeUntilFull(ctx, s.api, "two", two, 60000, 0)
		ends <- end{"two", n, err}
	}()
	var failed error
	for i := 0; i < 2; i++ {
		e := <-ends
		if e.err != nil {
			failed = fmt.Errorf("writer %s: %v", e.ref, e.err)
		}
		offsets[e.ref] = e.offset
	}
	if failed != nil {
		return failed
	}
	if err := fillUp(s.ballast); err != nil {
		return err
	}
	if err := s.agree(ctx, "while full", offsets); err != nil {
		return err
	}
	// A new ingest has no room either, and is not left half made.
	err = func() error {
		w, err := openWrite(ctx, s.api, "three", 0)
		if err != nil {
			return err
		}
		defer w.cancel()
		_, err = w.write(0, one[:100000])
		return err
	}()
	if err := mustCode("a new ingest on a full disk", err, codes.ResourceExhausted); err != nil {
		return err
	}
	if _, err := s.api.Abort(ctx, &content.AbortRequest{Ref: "three"}); err != nil {
		return fmt.Errorf("Abort on a full disk: %v", err)
	}
	// Bytes that are all there may have no room for their row: they are kept, and that is said.
	if err := s.agree(ctx, "after more was refused", offsets); err != nil {
		return err
	}
	// Killed while full, it starts again, with all of it.
	s.kill()
	if err := fillUp(s.ballast); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return fmt.Errorf("start on a full disk: %v", err)
	}
	if err := s.agree(ctx, "started while full", offsets); err != nil {
		return err
	}
	for _, d := range blobs {
		if err := s.remove(ctx, d); err != nil {
			return fmt.Errorf("Delete on a full disk: %v", err)
		}
	}
	if err := os.Remove(s.ballast); err != nil {
		return err
	}
	if err := s.agree(ctx, "with room again", offsets); err != nil {
		return err
	}
	if err := finishIngest(ctx, s.api, "one", one, offsets["one"]); err != nil {
		return fmt.Errorf("the ingest of known total, with room again: %v", err)
	}
	s.blobs[sum(one)] = one
	if err := s.remove(ctx, sum(one)); err != nil {
		return err
	}
	if err := finishIngest(ctx, s.api, "two", two, offsets["two"]); err != nil {
		return fmt.Errorf("the ingest of unknown total, with room again: %v", err)
	}
	s.blobs[sum(two)] = two
	if err := s.agree(ctx, "at the end", nil); err != nil {
		return err
	}
	if err := ordinaryStore(s.api, 1); err != nil {
		return fmt.Errorf("with room again: %v", err)
	}
	s.conn.Close()
	if err := s.d.Stop(stopLimit); err != nil {
		return err
	}
	return filesOf(s.config.Root, map[digest.Digest]content.Info{sum(two): {}}, nil)
}

// thenFull fills the disk while no daemon runs; the next one must start, answer what reads, and delete blobs,
// since nobody else makes room.
func thenFull(dir, mnt string, end func(*small) error) error {
	ctx, cancel := background()
	defer cancel()
	s, err := newSmall(dir, mnt)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	for i := int64(0); i < 40; i++ {
		if _, err := s.put(ctx, i, 100000); err != nil {
			return err
		}
	}
	if err := begun(ctx, s.api, "left", pattern(500, 5000)); err != nil {
		return err
	}
	if err := end(s); err != nil {
		return err
	}
	// What the lock says of its last holder may have to be written anew, without room for it.
	if err := os.Truncate(filepath.Join(s.config.Root, "lock"), 0); err != nil {
		return err
	}
	for i := 0; i < 3; i++ {
		if err := fillUp(s.ballast); err != nil {
			return err
		}
		if err := s.start(); err != nil {
			return fmt.Errorf("start %d on a full disk: %v", i, err)
		}
		if err := s.agree(ctx, "started on a full disk", map[string]int64{"left": 5000}); err != nil {
			return err
		}
		// As containerd's garbage collection: one after the other; and each time what that frees is taken by others.
		n := 0
		for d := range s.blobs {
			if err := s.remove(ctx, d); err != nil {
				return fmt.Errorf("start %d: Delete %d on a full disk: %v\n%s", i, n, err, died(s.d))
			}
			if err := fillUp(s.ballast); err != nil {
				return err
			}
			if n++; n == 10 {
				break
			}
		}
		if err := s.agree(ctx, "after Deletes", map[string]int64{"left": 5000}); err != nil {
			return err
		}
		if err := end(s); err != nil {
			return err
		}
	}
	if err := os.Remove(s.ballast); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	if err := s.agree(ctx, "with room again", map[string]int64{"left": 5000}); err != nil {
		return err
	}
	if err := ordinaryStore(s.api, 1); err != nil {
		return err
	}
	s.conn.Close()
	return s.d.Stop(stopLimit)
}

func stoppedThenFull(dir, mnt string) error {
	return thenFull(dir, mnt, func(s *small) error {
		s.conn.Close()
		return s.d.Stop(stopLimit)
	})
}

func killedThenFull(dir, mnt string) error {
	return thenFull(dir, mnt, func(s *small) error {
		s.kill()
		return nil
	})
}

// fullOfLabels lets the database's own writes find no room, at COMMIT and at Update.
func fullOfLabels(dir, mnt string) error {
	ctx, cancel := background()
	defer cancel()
	s, err := newSmall(dir, mnt)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	d, err := s.put(ctx, 1, 1000)
	if err != nil {
		return err
	}
	big := map[string]string{"seed": "1"}
	for i := 0; i < 60; i++ {
		big[fmt.Sprintf("label-%02d", i)] = strings.Repeat("v", 4000)
	}
	// Ingests whose bytes are there before the disk is full.
	waiting := map[string][]byte{}
	for i := int64(0); i < 200; i++ {
		ref := fmt.Sprintf("waiting %d", i)
		waiting[ref] = pattern(1000+i, 500)
		if err := begun(ctx, s.api, ref, waiting[ref]); err != nil {
			return err
		}
	}
	if err := fillUp(s.ballast); err != nil {
		return err
	}
	refused := 0
	for ref, data := range waiting {
		w, err := openWrite(ctx, s.api, ref, 0)
		if err != nil {
			return fmt.Errorf("STAT on a full disk: %v", err)
		}
		err = w.commit(sum(data), big)
		w.cancel()
		if err := mustCode("COMMIT on a full disk", err, codes.OK, codes.ResourceExhausted); err != nil {
			return err
		}
		if err == nil {
			s.blobs[sum(data)] = data
			delete(waiting, ref)
		} else {
			refused++
		}
		_, err = s.api.Update(ctx, &content.UpdateRequest{Info: content.Info{Digest: d, Labels: big}})
		if err := mustCode("Update on a full disk", err, codes.OK, codes.ResourceExhausted); err != nil {
			return err
		}
		if err := fillUp(s.ballast); err != nil {
			return err
		}
	}
	if refused == 0 {
		return errors.New("the disk is full, and no COMMIT was refused")
	}
	offsets := map[string]int64{}
	for ref := range waiting {
		offsets[ref] = 500
	}
	if err := s.agree(ctx, "while full", offsets); err != nil {
		return err
	}
	s.kill()
	if err := fillUp(s.ballast); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return fmt.Errorf("start on a full disk: %v", err)
	}
	if err := s.agree(ctx, "started while full", offsets); err != nil {
		return err
	}
	for d := range s.blobs {
		if err := s.remove(ctx, d); err != nil {
			return fmt.Errorf("Delete on a full disk: %v", err)
		}
	}
	if err := os.Remove(s.ballast); err != nil {
		return err
	}
	for ref, data := range waiting {
		if err := finishIngest(ctx, s.api, ref, data, 500); err != nil {
			return fmt.Errorf("with room again: %v", err)
		}
		s.blobs[sum(data)] = data
	}
	if err := s.agree(ctx, "with room again", nil); err != nil {
		return err
	}
	s.conn.Close()
	return s.d.Stop(stopLimit)
}
