// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	content "github.com/containerd/containerd/api/services/content/v1"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// storeRaces are run with ThreadSanitizer too.
var storeRaces = []storeAttack{
	{"of_many_commits_of_one_digest_one_makes_the_blob", raceCommits},
	{"a_reader_keeps_its_bytes_when_the_blob_is_deleted", raceReadDelete},
	{"a_delete_and_a_commit_of_one_digest_leave_all_or_nothing", raceDeleteCommit},
	{"an_abort_and_the_end_of_a_stream_leave_all_or_nothing", raceAbort},
	{"of_two_writers_of_a_reference_one_waits_and_is_told", raceWriters},
	{"updates_deletes_and_lists_at_a_time_agree", raceLabels},
	{"a_slow_reader_gets_every_byte", slowReader},
	{"readers_that_stop_reading_hold_little_memory", stalledReaders},
	{"writers_that_stop_in_a_message_hold_nobody_up", stalledWriters},
}

// all runs f n times at a time, and returns the first error.
func all(n int, f func(i int) error) error {
	errs := make(chan error, n)
	for i := 0; i < n; i++ {
		i := i
		go func() { errs <- f(i) }()
	}
	var first error
	for i := 0; i < n; i++ {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// blobFile is where the bytes of a blob lie.
func (s *storeTarget) blobFile(d digest.Digest) string {
	return filepath.Join(s.d.Root, "blobs", strings.Replace(string(d), ":", "/", 1))
}

// whole checks that a blob is there with all its bytes, or not at all; present returns which.
func (s *storeTarget) whole(ctx context.Context, d digest.Digest, data []byte) (present bool, err error) {
	_, err = s.api.Info(ctx, &content.InfoRequest{Digest: d})
	_, noFile := os.Stat(s.blobFile(d))
	switch {
	case status.Code(err) == codes.NotFound && noFile != nil:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("Info: %v, the file: %v", err, noFile)
	}
	got, err := readBlob(ctx, s.api, d, 0, 0)
	if err != nil || !bytes.Equal(got, data) {
		return true, fmt.Errorf("it reads as %d bytes: %v", len(got), err)
	}
	return true, nil
}

func raceCommits(s *storeTarget) error {
	const n = 16
	for round := 0; round < 12; round++ {
		ctx, cancel := background()
		data := pattern(int64(2000+round), 1+round*20000)
		d := sum(data)
		var mu sync.Mutex
		made := 0
		err := all(n, func(i int) error {
			_, err := put(ctx, s.api, fmt.Sprintf("same %d %d", round, i), data, map[string]string{"writer": fmt.Sprint(i)})
			if err == nil {
				mu.Lock()
				made++
				mu.Unlock()
			}
			return mustCode("COMMIT of a digest by many", err, codes.OK, codes.AlreadyExists)
		})
		if err == nil && made != 1 {
			err = fmt.Errorf("%d of %d made the blob", made, n)
		}
		if err == nil {
			var present bool
			if present, err = s.whole(ctx, d, data); err == nil && !present {
				err = fmt.Errorf("the blob is not there")
			}
		}
		if err == nil {
			err = s.removeOthers()
		}
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func raceReadDelete(s *storeTarget) error {
	data := pattern(2100, 3<<20)
	d := sum(data)
	for round := 0; round < 6; round++ {
		ctx, cancel := background()
		if _, err := put(ctx, s.api, "to be deleted", data, nil); err != nil {
			cancel()
			return err
		}
		begun := make(chan struct{}, 8)
		deleted := make(chan struct{})
		go func() {
			for i := 0; i < cap(begun); i++ {
				<-begun
			}
			s.api.Delete(ctx, &content.DeleteContentRequest{Digest: d})
			close(deleted)
		}()
		err := all(cap(begun), func(i int) error {
			st, err := s.api.Read(ctx, &content.ReadContentRequest{Digest: d})
			var r *content.ReadContentResponse
			if err == nil {
				r, err = st.Recv()
			}
			begun <- struct{}{}
			if err != nil {
				return fmt.Errorf("the first answer: %v", err)
			}
			<-deleted
			got := r.Data
			for {
				r, err := st.Recv()
				if err == io.EOF {
					break
				}
				if err != nil {
					return fmt.Errorf("after %d bytes of a deleted blob: %v", len(got), err)
				}
				got = append(got, r.Data...)
			}
			if !bytes.Equal(got, data) {
				return fmt.Errorf("%d bytes of a deleted blob, not those of the blob", len(got))
			}
			return nil
		})
		if err == nil {
			_, err = readBlob(ctx, s.api, d, 0, 10)
			err = mustCode("Read after Delete", err, codes.NotFound)
		}
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func raceDeleteCommit(s *storeTarget) error {
	data := pattern(2200, 30000)
	d := sum(data)
	ctx, cancel := background()
	defer cancel()
	err := all(8, func(i int) error {
		for n := 0; n < 40; n++ {
			switch i % 4 {
			case 0, 1:
				_, err := put(ctx, s.api, fmt.Sprintf("commit %d", i), data, nil)
				if err := mustCode("COMMIT against Delete", err, codes.OK, codes.AlreadyExists); err != nil {
					return err
				}
			case 2:
				if _, err := s.api.Delete(ctx, &content.DeleteContentRequest{Digest: d}); err != nil {
					return fmt.Errorf("Delete against COMMIT: %v", err)
				}
			case 3:
				got, err := readBlob(ctx, s.api, d, 0, 0)
				if err := mustCode("Read against Delete", err, codes.OK, codes.NotFound); err != nil {
					return err
				}
				if err == nil && !bytes.Equal(got, data) {
					return fmt.Errorf("%d bytes were read, not those of the blob", len(got))
				}
			}
		}
		return nil
	})
	if err == nil {
		_, err = s.whole(ctx, d, data)
	}
	if err != nil {
		return err
	}
	return s.removeOthers()
}

func raceAbort(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	committed, aborted := 0, 0
	for round := 0; round < 120; round++ {
		data := pattern(int64(2300+round), 20000)
		ref := fmt.Sprintf("abort %d", round)
		w, err := openWrite(ctx, s.api, ref, 0)
		if err == nil {
			_, err = w.write(0, data)
		}
		if err != nil {
			return err
		}
		// At the same time: Abort, and COMMIT or the end of the stream.
		abort := make(chan error, 1)
		go func() {
			_, err := s.api.Abort(ctx, &content.AbortRequest{Ref: ref})
			abort <- err
		}()
		if round%3 == 0 {
			err = w.end()
		} else {
			err = w.commit(sum(data), nil)
			w.cancel()
			if err := mustCode("COMMIT against Abort", err, codes.OK, codes.Aborted); err != nil {
				return err
			}
		}
		if round%3 != 0 && err == nil {
			committed++
		} else if err != nil {
			aborted++
		}
		if aerr := <-abort; aerr != nil {
			return fmt.Errorf("Abort: %v", aerr)
		}
		present, werr := s.whole(ctx, sum(data), data)
		if werr != nil {
			return werr
		}
		if want := round%3 != 0 && err == nil; present != want {
			return fmt.Errorf("COMMIT ended with %v, the blob is there: %v", err, present)
		}
		if _, err := s.api.Status(ctx, &content.StatusRequest{Ref: ref}); status.Code(err) != codes.NotFound {
			return fmt.Errorf("after Abort there is an ingest: %v", err)
		}
	}
	if *verbose {
		fmt.Printf("     %d were committed first, %d aborted\n", committed, aborted)
	}
	return s.removeOthers()
}

func raceWriters(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	for round := 0; round < 5; round++ {
		w, err := openWrite(ctx, s.api, "two", 0)
		if err != nil {
			return err
		}
		if _, err := w.write(w.offset, []byte("first")); err != nil {
			return err
		}
		// More than may wait: each is told, and changes nothing.
		if err := all(8, func(int) error {
			_, err := openWrite(ctx, s.api, "two", 0)
			return mustCode("a second writer", err, codes.Unavailable)
		}); err != nil {
			return err
		}
		if _, err := w.write(w.offset, []byte("more")); err != nil {
			return fmt.Errorf("the first writer: %v", err)
		}
		// One that goes, unannounced, makes way for one that waits.
		end := make(chan error, 1)
		go func() { end <- w.end() }()
		var next *writing
		if err := eventually(func() string { return "the reference stays busy" }, func() bool {
			next, err = openWrite(ctx, s.api, "two", 0)
			return err == nil
		}); err != nil {
			return err
		}
		if err := <-end; err != nil {
			return err
		}
		if next.offset != int64(9*(round+1)) {
			return fmt.Errorf("the next writer goes on at %d", next.offset)
		}
		next.cancel()
		if err := eventually(func() string { return "the reference stays busy" }, func() bool {
			next, err = openWrite(ctx, s.api, "two", 0)
			return err == nil
		}); err != nil {
			return err
		}
		if err := next.end(); err != nil {
			return err
		}
	}
	return s.quiet()
}

func raceLabels(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	const n = 6
	var blobs [n]digest.Digest
	for i := range blobs {
		var err error
		if blobs[i], err = put(ctx, s.api, "labels", pattern(int64(2400+i), 500), nil); err != nil {
			return err
		}
	}
	if err := all(12, func(i int) error {
		for k := 0; k < 30; k++ {
			d := blobs[(i+k)%n]
			switch i % 4 {
			case 0, 1:
				v := fmt.Sprintf("%d-%d", i, k)
				r, err := s.api.Update(ctx, &content.UpdateRequest{Info: content.Info{Digest: d, Labels: map[string]string{"a": v, "b": v}}})
				if err := mustCode("Update", err, codes.OK, codes.NotFound); err != nil {
					return err
				}
				if err == nil && (r.Info.Labels["a"] != v || r.Info.Labels["b"] != v) {
					return fmt.Errorf("Update: %v", r)
				}
			case 2:
				seen, err := listBlobs(ctx, s.api)
				if err != nil {
					return err
				}
				for d, info := range seen {
					// Both were set at once.
					if _, ours := s.blobs[d]; !ours && info.Labels["a"] != info.Labels["b"] {
						return fmt.Errorf("List: %v", info)
					}
				}
			case 3:
				if i == 3 && k%10 == 9 {
					if _, err := s.api.Delete(ctx, &content.DeleteContentRequest{Digest: d}); err != nil {
						return err
					}
				}
				r, err := s.api.Info(ctx, &content.InfoRequest{Digest: d})
				if err := mustCode("Info", err, codes.OK, codes.NotFound); err != nil {
					return err
				}
				if err == nil && r.Info.Labels["a"] != r.Info.Labels["b"] {
					return fmt.Errorf("Info: %v", r)
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return s.removeOthers()
}

// readRequest is a Read of the big blob as it stands on the wire.
func (s *storeTarget) readRequest() []byte { return plain(pb{}.str(1, string(s.big))) }

func slowReader(s *storeTarget) error {
	// It grants a few bytes at a time.
	r, err := s.raw(true, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	if err != nil {
		return err
	}
	defer r.Close()
	id, err := r.open(false, grpcHeaders(contentPrefix+"Read"))
	if err == nil {
		err = r.data(id, true, plain(append(pb{}.str(1, string(s.big)), pb{}.varint(3<<3).varint(400000)...)))
	}
	if err != nil {
		return err
	}
	st := r.streams[id]
	for granted := 0; ; granted += 4099 {
		r.wmu.Lock()
		r.fr.WriteWindowUpdate(0, 4099)
		r.fr.WriteWindowUpdate(id, 4099)
		r.wmu.Unlock()
		if granted%100 == 0 {
			if err := s.ordinary(3); err != nil {
				return err
			}
		}
		if err := r.wait(func() bool { return st.done || len(st.data) >= granted }); err != nil {
			return err
		}
		r.mu.Lock()
		done, closed := st.done, r.closed
		r.mu.Unlock()
		if done || closed {
			break
		}
	}
	res, err := r.result(id)
	if err != nil || res.status != 0 {
		return fmt.Errorf("a slow reader: %v %v", res, err)
	}
	got, err := readMessages(res.data)
	if err != nil || !bytes.Equal(got, pattern(bigBytes, bigBytes)[:400000]) {
		return fmt.Errorf("a slow reader got %d bytes: %v", len(got), err)
	}
	return nil
}

// readMessages takes the bytes of the blob out of the answers of a Read.
func readMessages(wire []byte) ([]byte, error) {
	var out []byte
	for len(wire) > 0 {
		if len(wire) < 5 {
			return out, io.ErrUnexpectedEOF
		}
		n := int(wire[1])<<24 | int(wire[2])<<16 | int(wire[3])<<8 | int(wire[4])
		if len(wire) < 5+n {
			return out, io.ErrUnexpectedEOF
		}
		var r content.ReadContentResponse
		if err := r.Unmarshal(wire[5 : 5+n]); err != nil {
			return out, err
		}
		out = append(out, r.Data...)
		wire = wire[5+n:]
	}
	return out, nil
}

// stalledReadKiB is what a Read may hold for a client that does not take it: content/README.md has 1.25 MiB.
const stalledReadKiB = 1280

// grew is by how much private memory may have grown; a sanitizer's own is not judged so finely.
func (s *storeTarget) grew(from, limit int) error {
	if sanitized {
		return nil
	}
	_, dirty := s.d.Mem()
	if *verbose {
		fmt.Printf("     private memory: %d KiB, before %d, allowed %d more\n", dirty, from, limit)
	}
	if dirty-from > limit {
		return fmt.Errorf("private memory grew by %d KiB, allowed %d", dirty-from, limit)
	}
	return nil
}

func stalledReaders(s *storeTarget) error {
	_, before := s.d.Mem()
	const n = 50
	var open []io.Closer
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for i := 0; i < n; i++ {
		if i%2 == 0 {
			// It reads the socket, and grants no more than the usual window.
			r, err := s.raw(true)
			if err != nil {
				return err
			}
			open = append(open, r)
			id, err := r.open(false, grpcHeaders(contentPrefix+"Read"))
			if err == nil {
				err = r.data(id, true, s.readRequest())
			}
			if err != nil {
				return err
			}
			st := r.streams[id]
			if err := r.wait(func() bool { return len(st.data) >= 60000 || st.done }); err != nil {
				return err
			}
			continue
		}
		// It grants all there could be, and does not read the socket.
		conn, err := net.Dial("unix", s.d.Addr)
		if err != nil {
			return err
		}
		open = append(open, conn)
		io.WriteString(conn, http2.ClientPreface)
		fr := http2.NewFramer(conn, nil)
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		fr.WriteWindowUpdate(0, 1<<30)
		r := &raw{c: conn, fr: fr, streams: map[uint32]*result{}, next: 1}
		r.init()
		id, err := r.open(false, grpcHeaders(contentPrefix+"Read"))
		if err == nil {
			err = r.data(id, true, s.readRequest())
		}
		if err != nil {
			return err
		}
	}
	// Others are served meanwhile, whole blobs among them.
	ctx, cancel := background()
	defer cancel()
	for i := int64(0); i < 10; i++ {
		if err := s.ordinary(10 + i); err != nil {
			return fmt.Errorf("beside readers that stopped: %v", err)
		}
		if got, err := readBlob(ctx, s.api, s.big, 0, 0); err != nil || len(got) != bigBytes {
			return fmt.Errorf("Read beside readers that stopped: %d bytes: %v", len(got), err)
		}
	}
	return s.grew(before, n*stalledReadKiB+8<<10)
}

func stalledWriters(s *storeTarget) error {
	_, before := s.d.Mem()
	const n, size = 24, 4 << 20
	var open []*raw
	defer func() {
		for _, r := range open {
			r.Close()
		}
	}()
	data := pattern(2500, size)
	for i := 0; i < n; i++ {
		r, err := s.raw(false)
		if err != nil {
			return err
		}
		open = append(open, r)
		ref := fmt.Sprintf("stalled %d", i)
		id, err := rawWrite(r, ref, data[:1000])
		if err != nil {
			return err
		}
		if err := s.holds(ref, 1000); err != nil {
			return err
		}
		// Half of a message of 4 MiB, and nothing more.
		go r.send(id, false, writeMessage("", 1000, data)[:size/2])
	}
	for i := int64(0); i < 20; i++ {
		if err := s.ordinary(10 + i); err != nil {
			return fmt.Errorf("beside writers that stopped: %v", err)
		}
	}
	// What has come of their messages, and little more.
	if err := s.grew(before, n*size/2>>10+8<<10); err != nil {
		return err
	}
	// More writers than workers could not be held up by them.
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := all(20, func(i int) error {
		_, err := put(ctx, s.api, fmt.Sprintf("beside %d", i), pattern(int64(2600+i), 1<<20), nil)
		return err
	}); err != nil {
		return fmt.Errorf("beside writers that stopped: %v", err)
	}
	for _, r := range open {
		r.Close()
	}
	for i := 0; i < n; i++ {
		if err := s.holds(fmt.Sprintf("stalled %d", i), 1000); err != nil {
			return err
		}
	}
	return s.quiet()
}
