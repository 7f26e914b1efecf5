// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"../crash/daemon"
	content "github.com/containerd/containerd/api/services/content/v1"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

var (
	holes = flag.String("holes", "", "library that makes holes of zeros, for the large tests")
	gib   = flag.Int("gib", 20, "size of the large blob")
)

// storeLarge takes a release build: with a sanitizer, memory says nothing, and time is long.
var storeLarge = []surrounding{
	{"twenty_thousand_blobs_are_listed_in_order_in_little_memory", manyBlobs},
	{"a_blob_of_many_GiB_is_written_resumed_committed_and_read_in_little_memory", largeBlob},
	{"eight_writers_at_a_time_need_little_memory", eightWriters},
}

// memoryKiB is the most private memory that the store may have, at any size of blobs and with 8 writers.
const memoryKiB = 24 << 10

// watched samples the private memory of a process until it is stopped.
type watched struct {
	mu   sync.Mutex
	most int
	stop chan struct{}
	over chan struct{}
}

func watch(d *daemon.Daemon) *watched {
	w := &watched{stop: make(chan struct{}), over: make(chan struct{})}
	go func() {
		defer close(w.over)
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			if _, dirty := d.Mem(); dirty > w.most {
				w.most = dirty
			}
			select {
			case <-t.C:
			case <-w.stop:
				return
			}
		}
	}()
	return w
}

// within ends the watch, and says if there was too much.
func (w *watched) within(what string, limit int) error {
	close(w.stop)
	<-w.over
	fmt.Printf("     %s: private memory of up to %d KiB\n", what, w.most)
	if sanitized || w.most <= limit {
		return nil
	}
	return fmt.Errorf("%s: private memory of %d KiB, allowed %d", what, w.most, limit)
}

// lap prints how long a part took.
func lap(begin *time.Time, format string, a ...interface{}) {
	fmt.Printf("     %s: %.1f s\n", fmt.Sprintf(format, a...), time.Since(*begin).Seconds())
	*begin = time.Now()
}

func manyBlobs(dir string) error {
	const n, writers = 20000, 8
	s := &small{config: daemon.Config{Exe: *exe, Dir: dir, Root: filepath.Join(dir, "root")}}
	if err := s.start(); err != nil {
		return err
	}
	defer func() { s.kill() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	w := watch(s.d)
	begin := time.Now()
	blobs := make([]digest.Digest, n)
	if err := all(writers, func(i int) error {
		for k := i; k < n; k += writers {
			var err error
			labels := map[string]string{"k": fmt.Sprint(k % 100), "containerd.io/gc.root": "x"}
			if blobs[k], err = put(ctx, s.api, fmt.Sprintf("default/%d/blob", k), pattern(int64(k), 100+k%3000), labels); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	lap(&begin, "%d blobs by %d writers", n, writers)
	sort.Slice(blobs, func(i, j int) bool { return blobs[i] < blobs[j] })
	look := func(when string) error {
		got, err := inOrder(ctx, s.api)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(got, blobs) {
			return fmt.Errorf("%s: %d blobs are listed, %d are there", when, len(got), len(blobs))
		}
		lap(&begin, "List of %d, %s", n, when)
		// Two of a hundred labels, one digest, and all that begin with 00, in order too.
		got, err = inOrder(ctx, s.api, "labels.k==7", "labels.k==42", "digest=="+string(blobs[n/2]), "digest~=/^sha256:00/")
		if err != nil {
			return err
		}
		if len(got) < n/50+1 || len(got) > n/50+1+n/64 || !sort.SliceIsSorted(got, func(i, j int) bool { return got[i] < got[j] }) {
			return fmt.Errorf("%s: filters select %d blobs", when, len(got))
		}
		lap(&begin, "List with filters, %s", when)
		return nil
	}
	if err := look("after writing"); err != nil {
		return err
	}
	if err := w.within("written and listed", memoryKiB); err != nil {
		return err
	}
	// Each of many Lists may have a queue of 4 MiB (rpc/server.c).
	w = watch(s.d)
	if err := all(16, func(int) error { _, err := inOrder(ctx, s.api); return err }); err != nil {
		return err
	}
	lap(&begin, "16 Lists at a time")
	if err := w.within("16 Lists at a time", memoryKiB+16<<12); err != nil {
		return err
	}
	for _, how := range []string{"a kill", "a stop"} {
		if how == "a kill" {
			s.kill()
		} else {
			s.conn.Close()
			if err := s.d.Stop(stopLimit); err != nil {
				return err
			}
		}
		begin = time.Now()
		if err := s.start(); err != nil {
			return err
		}
		lap(&begin, "start after %s", how)
		w = watch(s.d)
		if err := look("after " + how); err != nil {
			return err
		}
		if err := w.within("started after "+how, memoryKiB); err != nil {
			return err
		}
	}
	rng := rand.New(rand.NewSource(*seed))
	rng.Shuffle(n, func(i, j int) { blobs[i], blobs[j] = blobs[j], blobs[i] })
	begin = time.Now()
	if err := all(writers, func(i int) error {
		for k := i; k < n; k += writers {
			if _, err := s.api.Delete(ctx, &content.DeleteContentRequest{Digest: blobs[k]}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	lap(&begin, "%d Deletes", n)
	s.conn.Close()
	if err := s.d.Stop(stopLimit); err != nil {
		return err
	}
	return filesOf(s.config.Root, nil, nil)
}

// inOrder lists digests, which must come in order.
func inOrder(ctx context.Context, a content.ContentClient, filters ...string) ([]digest.Digest, error) {
	st, err := a.List(ctx, &content.ListContentRequest{Filters: filters})
	if err != nil {
		return nil, err
	}
	var out []digest.Digest
	for {
		r, err := st.Recv()
		if err != nil {
			if err.Error() == "EOF" {
				err = nil
			}
			return out, err
		}
		for _, i := range r.Info {
			if len(out) > 0 && i.Digest <= out[len(out)-1] {
				return nil, fmt.Errorf("%s is listed behind %s", i.Digest, out[len(out)-1])
			}
			out = append(out, i.Digest)
		}
	}
}

// sumsOfZeros are those of so many GiB of zeros: head -c 20G /dev/zero | sha256sum.
var sumsOfZeros = map[int]digest.Digest{
	2:  "sha256:a7c744c13cc101ed66c29f672f92455547889cc586ce6d44fe76ae824958ea51",
	20: "sha256:6cb118a8f8b3c19385874297e291dcbcdf3a9837ba1ca7b00ace2491adbff551",
}

// sparse is a store that makes holes of zeros.
func sparse(dir string) (*small, error) {
	if *holes == "" {
		return nil, skipError("needs -holes")
	}
	s := &small{config: daemon.Config{Exe: *exe, Dir: dir, Root: filepath.Join(dir, "root"), Env: []string{"LD_PRELOAD=" + *holes}}}
	return s, s.start()
}

// zeroWriter sends zeros on a connection of its own, without what grpc-go costs.
type zeroWriter struct {
	r      *raw
	id     uint32
	offset int64
}

const zeroChunk = 1 << 20

func newZeroWriter(addr, ref string, total, offset int64) (*zeroWriter, error) {
	r, err := dialRaw(addr, false)
	if err != nil {
		return nil, err
	}
	w := &zeroWriter{r: r, offset: offset}
	if w.id, err = r.open(false, grpcHeaders(contentPrefix+"Write")); err != nil {
		return nil, err
	}
	return w, w.send(plain(pb{}.str(2, ref).varint(3 << 3).varint(uint64(total))))
}

// send sends a message and waits for its answer.
func (w *zeroWriter) send(message []byte) error {
	st := w.r.streams[w.id]
	w.r.mu.Lock()
	st.data = st.data[:0]
	w.r.mu.Unlock()
	if err := w.r.send(w.id, false, message); err != nil {
		return err
	}
	if err := w.r.wait(func() bool { return len(st.data) > 0 || st.done }); err != nil {
		return err
	}
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if len(st.data) == 0 {
		return fmt.Errorf("at byte %d: %v", w.offset, *st)
	}
	return nil
}

func (w *zeroWriter) writeTo(end int64) error {
	zeros := make([]byte, zeroChunk)
	for w.offset < end {
		if err := w.send(writeMessage("", int(w.offset), zeros)); err != nil {
			return err
		}
		w.offset += zeroChunk
	}
	return nil
}

// commit returns the digest that the store answers.
func (w *zeroWriter) commit() (digest.Digest, error) {
	if err := w.send(plain(pb{}.varint(1 << 3).varint(2).varint(5 << 3).varint(uint64(w.offset)))); err != nil {
		return "", err
	}
	var r content.WriteContentResponse
	err := r.Unmarshal(w.r.streams[w.id].data[5:])
	return r.Digest, err
}

// readZeros reads a blob whole, as fast as it comes, and returns how many bytes it had.
func readZeros(addr string, d digest.Digest) (int64, error) {
	r, err := dialRaw(addr, false, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 8 << 20},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	r.mu.Lock()
	r.grant = 2 << 20
	r.mu.Unlock()
	r.wmu.Lock()
	r.fr.WriteWindowUpdate(0, 8<<20)
	r.wmu.Unlock()
	id, err := r.open(false, grpcHeaders(contentPrefix+"Read"))
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	st := r.streams[id]
	zeros := make([]byte, 1<<20)
	// All of it, but for the heads of some 80,000 answers of at most 256 KiB.
	var n, other int64
	st.sink = func(b []byte) {
		n += int64(len(b))
		if !bytes.Equal(b, zeros[:len(b)]) {
			other++
		}
	}
	r.mu.Unlock()
	if err := r.data(id, true, plain(pb{}.str(1, string(d)))); err != nil {
		return 0, err
	}
	for last := int64(-1); ; {
		now := int64(0)
		err := r.wait(func() bool { now = n; return st.done || n > last+1<<30 })
		if err != nil {
			return n, err
		}
		if st.done || r.closed {
			break
		}
		last = now
	}
	res, err := r.result(id)
	if err == nil && res.status != 0 {
		err = fmt.Errorf("%v", res)
	}
	return n, err
}

func largeBlob(dir string) error {
	size := int64(*gib) << 30
	want, known := sumsOfZeros[*gib]
	s, err := sparse(dir)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	begin := time.Now()
	watching := watch(s.d)
	w, err := newZeroWriter(s.d.Addr, "large", size, 0)
	if err == nil {
		err = w.writeTo(64 << 20)
	}
	if err != nil {
		return err
	}
	if err := takesNoRoom(s.config.Root); err != nil {
		return err
	}
	if err := w.writeTo(size / 2); err != nil {
		return err
	}
	lap(&begin, "%d GiB written", *gib/2)
	if err := watching.within("half of it", memoryKiB); err != nil {
		return err
	}
	// Killed in the middle, it goes on there; the bytes held are hashed anew.
	s.kill()
	w.r.Close()
	if err := s.start(); err != nil {
		return err
	}
	watching = watch(s.d)
	r, err := s.api.Status(ctx, &content.StatusRequest{Ref: "large"})
	if err != nil || r.Status.Offset != size/2 || r.Status.Total != size {
		return fmt.Errorf("Status after a kill: %v %v", r, err)
	}
	begin = time.Now()
	if w, err = newZeroWriter(s.d.Addr, "large", size, size/2); err != nil {
		return err
	}
	lap(&begin, "taken up after a kill")
	if err := w.writeTo(size); err != nil {
		return err
	}
	d, err := w.commit()
	if err != nil {
		return err
	}
	w.r.Close()
	lap(&begin, "the other %d GiB written and committed", *gib-*gib/2)
	if known && d != want {
		return fmt.Errorf("the digest is %s, expected %s", d, want)
	}
	if r, err := s.api.Info(ctx, &content.InfoRequest{Digest: d}); err != nil || r.Info.Size_ != size {
		return fmt.Errorf("Info: %v %v", r, err)
	}
	for _, at := range []int64{0, 1<<31 - 10, 1<<32 - 10, size / 2, size - 20} {
		if at > size-20 {
			continue
		}
		if got, err := readBlob(ctx, s.api, d, at, 20); err != nil || !bytes.Equal(got, make([]byte, 20)) {
			return fmt.Errorf("Read at %d: %x %v", at, got, err)
		}
	}
	_, err = readBlob(ctx, s.api, d, size+1, 0)
	if err := mustCode("Read behind the end", err, codes.OutOfRange); err != nil {
		return err
	}
	begin = time.Now()
	n, err := readZeros(s.d.Addr, d)
	if err != nil {
		return fmt.Errorf("after %d bytes: %v", n, err)
	}
	// Each answer has some 20 bytes around its bytes of the blob.
	if n < size || n > size+size>>10 {
		return fmt.Errorf("Read gave %d bytes for %d", n, size)
	}
	lap(&begin, "%d GiB read", *gib)
	if err := watching.within("the rest of it, and reading", memoryKiB); err != nil {
		return err
	}
	s.conn.Close()
	return s.d.Stop(stopLimit)
}

// takesNoRoom makes sure of the holes, lest the disk fills up.
func takesNoRoom(root string) error {
	return filepath.Walk(filepath.Join(root, "ingests"), func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if st := fi.Sys().(*syscall.Stat_t); fi.Mode().IsRegular() && !strings.HasSuffix(p, ".ref") && st.Blocks*512 > fi.Size()/2 {
			return errors.New("zeros take room on disk: does the store write by a call that " + *holes + " does not know?")
		}
		return nil
	})
}

func eightWriters(dir string) error {
	const writers, each = 8, int64(512) << 20
	s, err := sparse(dir)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	watching := watch(s.d)
	begin := time.Now()
	var mu sync.Mutex
	made := 0
	if err := all(writers, func(i int) error {
		// Of different sizes, all but two.
		size := each + int64(i/2*2)*zeroChunk
		w, err := newZeroWriter(s.d.Addr, fmt.Sprintf("writer %d", i), size, 0)
		if err != nil {
			return err
		}
		defer w.r.Close()
		if err := w.writeTo(size); err != nil {
			return err
		}
		if _, err := w.commit(); err != nil {
			if strings.Contains(err.Error(), "already exists") {
				return nil
			}
			return err
		}
		mu.Lock()
		made++
		mu.Unlock()
		return nil
	}); err != nil {
		return err
	}
	lap(&begin, "%d writers of %d MiB each", writers, each>>20)
	if made != writers/2 {
		return fmt.Errorf("%d blobs were made by pairs of %d writers", made, writers)
	}
	if err := watching.within("8 writers", memoryKiB); err != nil {
		return err
	}
	s.conn.Close()
	return s.d.Stop(stopLimit)
}
