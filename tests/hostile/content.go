// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"../crash/daemon"
	content "github.com/containerd/containerd/api/services/content/v1"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// contentPrefix is that of the methods of a content store.
const contentPrefix = "/containerd.services.content.v1.Content/"

// storeTarget is a lighter-content with some blobs and ingests in it, which attacks share.
type storeTarget struct {
	dir         string
	d           *daemon.Daemon
	conn        *grpc.ClientConn
	api         content.ContentClient
	baseSockets int
	baseFiles   int
	baseDirty   int
	blobs       map[digest.Digest]content.Info
	ingests     map[string]content.Status
	big         digest.Digest // of bigBytes
}

const bigBytes = 8 << 20

// pattern is n bytes that depend on seed.
func pattern(seed int64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

func sum(b []byte) digest.Digest {
	return digest.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b)))
}

// dialStore starts a daemon and connects.
func dialStore(c daemon.Config) (*daemon.Daemon, *grpc.ClientConn, content.ContentClient, error) {
	d, err := start(c)
	if err != nil {
		return nil, nil, nil, err
	}
	conn, err := d.Dial()
	if err != nil {
		d.Kill()
		return nil, nil, nil, err
	}
	return d, conn, content.NewContentClient(conn), nil
}

func newStore() (*storeTarget, error) {
	dir, err := os.MkdirTemp(*tmp, "h")
	if err != nil {
		return nil, err
	}
	s := &storeTarget{dir: dir}
	if s.d, s.conn, s.api, err = dialStore(daemon.Config{Exe: *exe, Dir: dir}); err != nil {
		return nil, err
	}
	if err := s.populate(); err != nil {
		return nil, err
	}
	// Let every kind of call have run, and many at a time, so that what is allocated once is there.
	errs := make(chan error)
	const crowd = 24
	for i := 0; i < crowd; i++ {
		go func(i int) { errs <- s.ordinary(int64(i)) }(i)
	}
	for i := 0; i < crowd; i++ {
		if e := <-errs; e != nil {
			err = e
		}
	}
	s.baseSockets, s.baseFiles = s.fds()
	_, s.baseDirty = s.d.Mem()
	return s, err
}

// populate makes blobs of several sizes, and ingests that are left where they are.
func (s *storeTarget) populate() error {
	ctx, cancel := background()
	defer cancel()
	for i, n := range []int{1, 100, 5000, 70000, 1 << 20, bigBytes} {
		data := pattern(int64(n), n)
		if n == bigBytes {
			s.big = sum(data)
		}
		if _, err := put(ctx, s.api, fmt.Sprintf("populate %d", i), data, map[string]string{"n": fmt.Sprint(i), "a.b/c": "x y",
			"odd": fmt.Sprint(i % 2)}); err != nil {
			return err
		}
	}
	for i := 0; i < 3; i++ {
		w, err := openWrite(ctx, s.api, fmt.Sprintf("left-%d", i), int64(i)*1000)
		if err != nil {
			return err
		}
		if _, err := w.write(0, pattern(77, 100*i+1)); err != nil {
			return err
		}
		if err := w.end(); err != nil {
			return err
		}
	}
	var err error
	s.blobs, s.ingests, err = s.look()
	return err
}

// look lists all there is.
func (s *storeTarget) look() (map[digest.Digest]content.Info, map[string]content.Status, error) {
	ctx, cancel := background()
	defer cancel()
	blobs, err := listBlobs(ctx, s.api)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.api.ListStatuses(ctx, &content.ListStatusesRequest{})
	if err != nil {
		return nil, nil, err
	}
	ingests := map[string]content.Status{}
	for _, i := range r.Statuses {
		ingests[i.Ref] = i
	}
	return blobs, ingests, nil
}

func listBlobs(ctx context.Context, a content.ContentClient, filters ...string) (map[digest.Digest]content.Info, error) {
	st, err := a.List(ctx, &content.ListContentRequest{Filters: filters})
	if err != nil {
		return nil, err
	}
	seen := map[digest.Digest]content.Info{}
	for {
		r, err := st.Recv()
		if err == io.EOF {
			return seen, nil
		}
		if err != nil {
			return nil, err
		}
		for _, i := range r.Info {
			seen[i.Digest] = i
		}
	}
}

// writing is a Write under way.
type writing struct {
	st     content.Content_WriteClient
	cancel context.CancelFunc
	ref    string
	total  int64
	// of the answer that came last
	offset int64
	digest digest.Digest
}

// openWrite begins a stream with a STAT.
func openWrite(ctx context.Context, a content.ContentClient, ref string, total int64) (*writing, error) {
	ctx, cancel := context.WithCancel(ctx)
	st, err := a.Write(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	w := &writing{st: st, cancel: cancel, ref: ref, total: total}
	if _, err := w.send(&content.WriteContentRequest{Action: content.WriteActionStat, Ref: ref, Total: total}); err != nil {
		cancel()
		return nil, err
	}
	return w, nil
}

func (w *writing) send(req *content.WriteContentRequest) (*content.WriteContentResponse, error) {
	// Why a stream has ended, Recv tells.
	if err := w.st.Send(req); err != nil && err != io.EOF {
		return nil, err
	}
	r, err := w.st.Recv()
	if err == nil {
		w.offset, w.digest = r.Offset, r.Digest
	}
	return r, err
}

func (w *writing) write(offset int64, data []byte) (*content.WriteContentResponse, error) {
	return w.send(&content.WriteContentRequest{Action: content.WriteActionWrite, Offset: offset, Data: data})
}

func (w *writing) commit(d digest.Digest, labels map[string]string) error {
	_, err := w.send(&content.WriteContentRequest{Action: content.WriteActionCommit, Offset: w.offset, Expected: d, Labels: labels})
	if err != nil {
		return err
	}
	if _, err := w.st.Recv(); err != io.EOF {
		return fmt.Errorf("after COMMIT: %v", err)
	}
	w.cancel()
	return nil
}

// end half-closes the stream, and waits for its end.
func (w *writing) end() error {
	defer w.cancel()
	if err := w.st.CloseSend(); err != nil {
		return err
	}
	if r, err := w.st.Recv(); err != io.EOF {
		return fmt.Errorf("after a half-close: %v %v", r, err)
	}
	return nil
}

// put writes a blob, in messages of 1 MiB.
func put(ctx context.Context, a content.ContentClient, ref string, data []byte, labels map[string]string) (digest.Digest, error) {
	w, err := openWrite(ctx, a, ref, int64(len(data)))
	if err != nil {
		return "", err
	}
	defer w.cancel()
	for at := 0; at < len(data); {
		n := len(data) - at
		if n > 1<<20 {
			n = 1 << 20
		}
		if _, err := w.write(int64(at), data[at:at+n]); err != nil {
			return "", err
		}
		at += n
	}
	d := sum(data)
	return d, w.commit(d, labels)
}

func readBlob(ctx context.Context, a content.ContentClient, d digest.Digest, offset, size int64) ([]byte, error) {
	st, err := a.Read(ctx, &content.ReadContentRequest{Digest: d, Offset: offset, Size_: size})
	if err != nil {
		return nil, err
	}
	var out []byte
	for {
		r, err := st.Recv()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, r.Data...)
	}
}

// ordinary makes one of every call, as an honest client would. Different seeds may run at a time.
func (s *storeTarget) ordinary(seed int64) error { return ordinaryStore(s.api, seed) }

func ordinaryStore(a content.ContentClient, seed int64) error {
	ctx, cancel := background()
	defer cancel()
	ref := fmt.Sprintf("ordinary-%d", seed)
	data := pattern(seed+1000, 40000)
	d, err := put(ctx, a, ref, data, map[string]string{"a": "b"})
	if err != nil {
		return fmt.Errorf("ordinary Write: %v", err)
	}
	if r, err := a.Info(ctx, &content.InfoRequest{Digest: d}); err != nil || r.Info.Size_ != int64(len(data)) {
		return fmt.Errorf("ordinary Info: %v %v", r, err)
	}
	if r, err := a.Update(ctx, &content.UpdateRequest{Info: content.Info{Digest: d, Labels: map[string]string{"c": "d"}}}); err != nil ||
		!reflect.DeepEqual(r.Info.Labels, map[string]string{"c": "d"}) {
		return fmt.Errorf("ordinary Update: %v %v", r, err)
	}
	for _, size := range []int64{0, 32 << 10} {
		got, err := readBlob(ctx, a, d, 0, size)
		if err != nil || !bytes.HasPrefix(data, got) || (size == 0 && len(got) != len(data)) {
			return fmt.Errorf("ordinary Read: %d bytes %v", len(got), err)
		}
	}
	if _, err := listBlobs(ctx, a, "labels.c==d"); err != nil {
		return fmt.Errorf("ordinary List: %v", err)
	}
	w, err := openWrite(ctx, a, ref, 0)
	if err == nil {
		_, err = w.write(0, data[:10])
	}
	if err != nil {
		return fmt.Errorf("ordinary Write: %v", err)
	}
	if r, err := a.Status(ctx, &content.StatusRequest{Ref: ref}); err != nil || r.Status.Offset != 10 {
		return fmt.Errorf("ordinary Status: %v %v", r, err)
	}
	if _, err := a.ListStatuses(ctx, &content.ListStatusesRequest{}); err != nil {
		return fmt.Errorf("ordinary ListStatuses: %v", err)
	}
	if err := w.end(); err != nil {
		return fmt.Errorf("ordinary Write: %v", err)
	}
	if _, err := a.Abort(ctx, &content.AbortRequest{Ref: ref}); err != nil {
		return fmt.Errorf("ordinary Abort: %v", err)
	}
	if _, err := a.Delete(ctx, &content.DeleteContentRequest{Digest: d}); err != nil {
		return fmt.Errorf("ordinary Delete: %v", err)
	}
	if _, err := a.Info(ctx, &content.InfoRequest{Digest: d}); status.Code(err) != codes.NotFound {
		return fmt.Errorf("ordinary Info of a deleted blob: %v", err)
	}
	return nil
}

// fds counts the daemon's sockets and its other descriptors.
func (s *storeTarget) fds() (sockets, files int) {
	dir := fmt.Sprintf("/proc/%d/fd", s.d.Pid())
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

// keptOpen is how many blobs stay open for the next Read.
const keptOpen = 64

// removeOthers deletes and aborts what an attack was right to be allowed to make.
func (s *storeTarget) removeOthers() error {
	blobs, ingests, err := s.look()
	if err != nil {
		return err
	}
	ctx, cancel := background()
	defer cancel()
	for ref := range ingests {
		if _, ok := s.ingests[ref]; ok {
			continue
		}
		if _, err := s.api.Abort(ctx, &content.AbortRequest{Ref: ref}); err != nil {
			return fmt.Errorf("Abort %.100q: %v", ref, err)
		}
	}
	for d := range blobs {
		if _, ok := s.blobs[d]; ok {
			continue
		}
		if _, err := s.api.Delete(ctx, &content.DeleteContentRequest{Digest: d}); err != nil {
			return fmt.Errorf("Delete %s: %v", d, err)
		}
	}
	return nil
}

// filesOf compares what lies on disk with what there is: a file for each blob, one or two for each ingest.
func filesOf(root string, blobs map[digest.Digest]content.Info, ingests map[string]content.Status) error {
	for _, algorithm := range []string{"sha256", "sha512"} {
		entries, err := os.ReadDir(filepath.Join(root, "blobs", algorithm))
		if err != nil {
			return err
		}
		n := 0
		for d := range blobs {
			if d.Algorithm() == digest.Algorithm(algorithm) {
				n++
			}
		}
		if len(entries) != n {
			return fmt.Errorf("%d files in blobs/%s for %d blobs", len(entries), algorithm, n)
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, "ingests"))
	if err != nil {
		return err
	}
	heads, holding := 0, 0
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".ref") {
			heads++
		}
	}
	for _, i := range ingests {
		if i.Offset > 0 {
			holding++
		}
	}
	if bodies := len(entries) - heads; heads != len(ingests) || bodies < holding || bodies > heads {
		return fmt.Errorf("ingests/ holds %d references and %d files of bytes, for %d ingests", heads, bodies, len(ingests))
	}
	return nil
}

// unharmed checks that an attack has left nothing, and that all is still there.
func (s *storeTarget) unharmed() error {
	if !s.d.Alive() {
		return fmt.Errorf("the daemon died\n%s", s.d.LogTail(40))
	}
	if err := s.ordinary(0); err != nil {
		return err
	}
	// Streams that were cut off may still be ending.
	why := ""
	if err := eventually(func() string { return why }, func() bool {
		blobs, ingests, err := s.look()
		switch {
		case err != nil:
			why = err.Error()
		case !reflect.DeepEqual(blobs, s.blobs):
			why = fmt.Sprintf("blobs: %v, were %v", blobs, s.blobs)
		case !reflect.DeepEqual(ingests, s.ingests):
			why = fmt.Sprintf("ingests: %v, were %v", ingests, s.ingests)
		default:
			if err := filesOf(s.d.Root, blobs, ingests); err != nil {
				why = err.Error()
				return false
			}
			return true
		}
		return false
	}); err != nil {
		return err
	}
	ctx, cancel := background()
	defer cancel()
	if got, err := readBlob(ctx, s.api, s.big, 0, 0); err != nil || sum(got) != s.big {
		return fmt.Errorf("a blob of %d bytes reads as %d: %v", bigBytes, len(got), err)
	}
	sockets, files := 0, 0
	if err := eventually(func() string {
		return fmt.Sprintf("%d sockets and %d other descriptors are open, %d and %d before", sockets, files, s.baseSockets, s.baseFiles)
	}, func() bool {
		sockets, files = s.fds()
		return sockets <= s.baseSockets && files <= s.baseFiles+poolFiles+keptOpen
	}); err != nil {
		return err
	}
	rss, dirty := 0, 0
	if sanitized {
		rss, _ = s.d.Mem()
		if rss > sanitizedRssKiB {
			return fmt.Errorf("resident: %d KiB", rss)
		}
	} else if err := eventually(func() string { return fmt.Sprintf("private memory is %d KiB, was %d", dirty, s.baseDirty) },
		func() bool { _, dirty = s.d.Mem(); return dirty <= s.baseDirty+releaseGrowthKiB }); err != nil {
		return err
	}
	if *verbose {
		rss, dirty = s.d.Mem()
		fmt.Printf("     after it: Rss %d KiB, Private_Dirty %d KiB (at first %d), %d sockets (%d), %d other descriptors (%d)\n", rss, dirty,
			s.baseDirty, sockets, s.baseSockets, files, s.baseFiles)
	}
	return s.d.Sanitizer()
}

// storeAttack is a test against the shared store.
type storeAttack struct {
	name string
	f    func(*storeTarget) error
}

// contentMain runs all that is for a content store.
func contentMain() {
	if *part == "large" {
		runEach(storeLarge)
		return
	}
	var s *storeTarget
	var attacks []storeAttack
	if *part != "races" {
		attacks = append(attacks, storeMessages...)
		attacks = append(attacks, storeStreams...)
	}
	attacks = append(attacks, storeRaces...)
	for _, a := range attacks {
		a := a
		run(a.name, func() error {
			if s == nil {
				var err error
				if s, err = newStore(); err != nil {
					s = nil
					return fmt.Errorf("no daemon to attack: %v", err)
				}
			}
			err := a.f(s)
			var why skipError
			if errors.As(err, &why) {
				return err
			}
			if err2 := s.unharmed(); err == nil {
				err = err2
			} else if err2 != nil {
				err = fmt.Errorf("%v\nafterwards: %v", err, err2)
			}
			if err != nil {
				// The next attack gets a fresh one.
				s.conn.Close()
				s.d.Kill()
				os.RemoveAll(s.dir)
				s = nil
			}
			return err
		})
	}
	if s != nil {
		run("the_store_stops_cleanly_after_all_attacks", func() error {
			s.conn.Close()
			if err := s.d.Stop(stopLimit); err != nil {
				return err
			}
			return filesOf(s.d.Root, s.blobs, s.ingests)
		})
		os.RemoveAll(s.dir)
	}
	if *part == "all" {
		runEach(storeSurroundings)
	}
}
