// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math/rand"
	"strings"
	"sync"

	content "github.com/containerd/containerd/api/services/content/v1"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var storeStreams = []storeAttack{
	{"content_calls_without_a_message_do_no_harm", storeNoMessage},
	{"a_write_after_commit_changes_nothing", writeAfterCommit},
	{"a_first_message_without_a_reference_is_refused", noReference},
	{"another_reference_in_a_later_message_is_ignored", otherReference},
	{"writes_that_do_not_wait_for_answers_are_done_in_order", pipelined},
	{"writes_cut_off_in_a_message_keep_what_came_before", cutWrites},
	{"wrong_length_prefixes_of_content_calls_are_refused", storePrefixes},
	{"writes_reset_at_any_moment_leave_whole_ingests", resetWrites},
	{"floods_of_resets_on_content_are_survived_and_forgotten", storeResets},
	{"thousands_of_open_writes_are_served_or_refused", manyWrites},
	{"deadlines_of_writes_keep_what_was_acknowledged", writeDeadlines},
}

func (s *storeTarget) raw(quiet bool, settings ...http2.Setting) (*raw, error) {
	return dialRaw(s.d.Addr, quiet, settings...)
}

// rawCall sends one stream on a connection of its own.
func (s *storeTarget) rawCall(method string, body []byte) (result, error) {
	r, err := s.raw(false)
	if err != nil {
		return result{status: -1}, err
	}
	defer r.Close()
	return r.call(contentPrefix+method, body)
}

func storeNoMessage(s *storeTarget) error {
	for _, m := range storeMethods {
		res, err := s.rawCall(m, nil)
		if err != nil {
			return fmt.Errorf("%s without a message: %v", m, err)
		}
		if err := refusedBy(m+" without a message", res, true, codes.Internal, codes.InvalidArgument, codes.Unimplemented, codes.Canceled); err != nil {
			return err
		}
		// An empty one is a message.
		res, err = s.rawCall(m, plain(nil))
		if err != nil {
			return fmt.Errorf("%s with an empty message: %v", m, err)
		}
		if err := refusedBy(m+" with an empty message", res, false, codes.OK, codes.InvalidArgument); err != nil {
			return err
		}
	}
	return s.removeOthers()
}

func writeAfterCommit(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	data := pattern(5, 1000)
	for i := 0; i < 50; i++ {
		w, err := openWrite(ctx, s.api, "after", 0)
		if err != nil {
			return err
		}
		if _, err := w.write(0, data); err != nil {
			return err
		}
		// Both are on their way before the first is answered.
		if err := w.st.Send(&content.WriteContentRequest{Action: content.WriteActionCommit, Offset: 1000}); err != nil {
			return err
		}
		_ = w.st.Send(&content.WriteContentRequest{Action: content.WriteActionWrite, Offset: 1000, Data: []byte("more")})
		r, err := w.st.Recv()
		if err != nil || r.Action != content.WriteActionCommit || r.Digest != sum(data) {
			return fmt.Errorf("COMMIT: %v %v", r, err)
		}
		if r, err := w.st.Recv(); err == nil {
			return fmt.Errorf("a WRITE after COMMIT was answered: %v", r)
		}
		w.cancel()
		if _, err := s.api.Status(ctx, &content.StatusRequest{Ref: "after"}); status.Code(err) != codes.NotFound {
			return fmt.Errorf("after COMMIT there is an ingest: %v", err)
		}
		if got, err := readBlob(ctx, s.api, sum(data), 0, 0); err != nil || sum(got) != sum(data) {
			return fmt.Errorf("the blob has %d bytes: %v", len(got), err)
		}
		if _, err := s.api.Delete(ctx, &content.DeleteContentRequest{Digest: sum(data)}); err != nil {
			return err
		}
	}
	return nil
}

func noReference(s *storeTarget) error {
	for _, action := range []content.WriteAction{content.WriteActionStat, content.WriteActionWrite, content.WriteActionCommit} {
		ctx, cancel := background()
		st, err := s.api.Write(ctx)
		if err == nil {
			_, err = (&writing{st: st}).send(&content.WriteContentRequest{Action: action, Data: []byte("x"), Expected: s.big})
		}
		cancel()
		if err := mustCode(fmt.Sprintf("%v without a reference", action), err, codes.InvalidArgument); err != nil {
			return err
		}
	}
	return nil
}

func otherReference(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	w, err := openWrite(ctx, s.api, "mine", 0)
	if err != nil {
		return err
	}
	if _, err := w.send(&content.WriteContentRequest{Action: content.WriteActionWrite, Ref: "left-1", Data: []byte("x")}); err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	if r, err := s.api.Status(ctx, &content.StatusRequest{Ref: "mine"}); err != nil || r.Status.Offset != 1 {
		return fmt.Errorf("Status: %v %v", r, err)
	}
	return s.removeOthers()
}

func pipelined(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	data := pattern(6, 4<<20)
	st, err := s.api.Write(ctx)
	if err != nil {
		return err
	}
	const n = 64
	size := len(data) / n
	go func() {
		for i := 0; i < n; i++ {
			st.Send(&content.WriteContentRequest{Action: content.WriteActionWrite, Ref: "pipelined", Offset: int64(i * size), Data: data[i*size : (i+1)*size]})
		}
		st.Send(&content.WriteContentRequest{Action: content.WriteActionCommit, Offset: int64(len(data)), Expected: sum(data)})
	}()
	for i := 1; i <= n+1; i++ {
		r, err := st.Recv()
		if err != nil {
			return fmt.Errorf("answer %d: %v", i, err)
		}
		if i <= n && (r.Offset != int64(i*size) || r.Digest != sum(data[:i*size])) {
			return fmt.Errorf("answer %d: %v", i, r)
		}
	}
	if _, err := st.Recv(); err != io.EOF {
		return fmt.Errorf("the end: %v", err)
	}
	return s.removeOthers()
}

// writeMessage is a WRITE as it stands on the wire.
func writeMessage(ref string, offset int, data []byte) []byte {
	b := pb{}.varint(1 << 3).varint(1)
	if ref != "" {
		b = b.str(2, ref)
	}
	return plain(b.varint(5<<3).varint(uint64(offset)).bytes(6, data))
}

// rawWrite opens a Write on a raw connection, and sends the first message.
func rawWrite(r *raw, ref string, first []byte) (uint32, error) {
	id, err := r.open(false, grpcHeaders(contentPrefix+"Write"))
	if err != nil {
		return id, err
	}
	return id, r.send(id, false, writeMessage(ref, 0, first))
}

// holds waits until an ingest stands at an offset, which a stream that is ending may still change.
func (s *storeTarget) holds(ref string, offset int64) error {
	ctx, cancel := background()
	defer cancel()
	var r *content.StatusResponse
	var err error
	return eventually(func() string { return fmt.Sprintf("%q: %v %v, expected offset %d", ref, r, err, offset) }, func() bool {
		r, err = s.api.Status(ctx, &content.StatusRequest{Ref: ref})
		return err == nil && r.Status.Offset == offset
	})
}

func cutWrites(s *storeTarget) error {
	data := pattern(7, 200000)
	message := writeMessage("", 1000, data[1000:])
	for i, how := range []string{"closed", "reset", "half-closed"} {
		for _, cut := range []int{1, 4, 5, 6, 9, 20, 1000, 50000, len(message) - 1} {
			ref := fmt.Sprintf("cut %d %d", i, cut)
			r, err := s.raw(false)
			if err != nil {
				return err
			}
			id, err := rawWrite(r, ref, data[:1000])
			if err == nil {
				err = s.holds(ref, 1000)
			}
			if err == nil {
				err = r.send(id, how == "half-closed", message[:cut])
			}
			if err != nil {
				return fmt.Errorf("cut after %d: %v", cut, err)
			}
			switch how {
			case "reset":
				err = r.rst(id, http2.ErrCodeCancel)
			case "half-closed":
				var res result
				res, err = r.result(id)
				if err == nil {
					err = refusedBy(fmt.Sprintf("half-closed after %d bytes of a message", cut), res, true, codes.OK, codes.Internal, codes.InvalidArgument,
						codes.Canceled)
				}
			}
			if err == nil {
				err = r.wait(func() bool { return true })
			}
			r.Close()
			if err == nil {
				err = s.holds(ref, 1000)
			}
			if err != nil {
				return fmt.Errorf("%s after %d bytes: %v", how, cut, err)
			}
		}
	}
	return s.removeOthers()
}

func storePrefixes(s *storeTarget) error {
	good := pb{}.varint(1<<3).varint(1).str(2, "prefix").bytes(6, []byte("bytes"))
	for _, m := range []string{"Write", "Read", "Info", "List"} {
		for what, b := range map[string][]byte{
			"longer than the body": message(0, len(good)+1, good),
			"of 16 MiB":            message(0, 16<<20, good),
			"of 16 MiB and one":    message(0, 16<<20+1, good),
			"of 4 GiB":             message(0, -1, good),
			"of 2 GiB":             message(0, 1<<31, good),
			"cut after one byte":   {0},
			"cut after four bytes": {0, 0, 0, 0},
			"flag 1":               message(1, len(good), good),
			"flag 255":             message(255, len(good), good),
		} {
			res, err := s.rawCall(m, b)
			if err != nil {
				return fmt.Errorf("%s, %s: %v", m, what, err)
			}
			allowed := []codes.Code{codes.Internal, codes.InvalidArgument, codes.ResourceExhausted, codes.Unimplemented, codes.Canceled, codes.Unavailable}
			if strings.HasPrefix(what, "flag") {
				allowed = append(allowed, codes.OK) // gRPC core takes it as it stands
			}
			if err := refusedBy(m+", "+what, res, true, allowed...); err != nil {
				return err
			}
		}
	}
	return s.removeOthers()
}

// resetWrites resets streams at random: whatever was done before, each ingest holds a prefix of what was sent.
func resetWrites(s *storeTarget) error {
	rng := rand.New(rand.NewSource(*seed))
	data := pattern(8, 300000)
	const n = 400
	r, err := s.raw(false)
	if err != nil {
		return err
	}
	defer func() { r.Close() }()
	for i := 0; i < n; i++ {
		ref := fmt.Sprintf("reset %d", i%40)
		id, err := r.open(false, grpcHeaders(contentPrefix+"Write"))
		if err == nil {
			// At offset 0 each: that of an ingest which is there begins anew.
			var wire []byte
			size := 1 + rng.Intn(len(data)/4)
			for at := 0; at+size <= len(data) && at < 4*size; at += size {
				wire = append(wire, writeMessage(ref, at, data[at:at+size])...)
			}
			if rng.Intn(2) == 0 {
				wire = wire[:rng.Intn(len(wire)+1)]
			}
			err = r.send(id, rng.Intn(3) == 0, wire)
		}
		if err == nil {
			err = r.rst(id, []http2.ErrCode{http2.ErrCodeCancel, http2.ErrCodeNo, http2.ErrCodeInternal}[rng.Intn(3)])
		}
		if err != nil || rng.Intn(50) == 0 {
			r.Close()
			if r, err = s.raw(false); err != nil {
				return err
			}
		}
	}
	r.Close()
	_, ingests, err := s.look()
	if err != nil {
		return err
	}
	ctx, cancel := background()
	defer cancel()
	for ref := range ingests {
		if !strings.HasPrefix(ref, "reset ") {
			continue
		}
		var w *writing
		if err := eventually(func() string { return fmt.Sprintf("%q stays busy", ref) }, func() bool {
			var err error
			w, err = openWrite(ctx, s.api, ref, 0)
			return err == nil
		}); err != nil {
			return err
		}
		if w.digest != sum(data[:w.offset]) {
			return fmt.Errorf("%q holds %d bytes, which are not what was sent", ref, w.offset)
		}
		w.cancel()
	}
	return s.removeOthers()
}

func storeResets(s *storeTarget) error {
	var wg sync.WaitGroup
	for c := 0; c < 4; c++ {
		c := c
		wg.Add(1)
		go func() {
			defer wg.Done()
			r, err := s.raw(false)
			if err != nil {
				return
			}
			defer r.Close()
			for i := 0; i < 2500 && err == nil; i++ {
				var id uint32
				method := []string{"Write", "Read", "List", "Info"}[i%4]
				if id, err = r.open(false, grpcHeaders(contentPrefix+method)); err == nil && i%2 == 0 {
					body := plain(pb{}.str(1, string(s.big)))
					if method == "Write" {
						body = writeMessage(fmt.Sprintf("flood %d %d", c, i%16), 0, []byte("x"))
					}
					err = r.send(id, false, body)
				}
				if err == nil {
					err = r.rst(id, http2.ErrCodeCancel)
				}
			}
		}()
	}
	wg.Wait()
	// Others may be told to come back later, but not for ever.
	var err error
	if err := eventually(func() string { return fmt.Sprintf("after a flood of resets: %v", err) }, func() bool {
		err = s.ordinary(1)
		return err == nil
	}); err != nil {
		return err
	}
	return s.quiet()
}

// quiet removes what was left, once no stream that was cut off adds to it any more.
func (s *storeTarget) quiet() error {
	last, same := "", 0
	return eventually(func() string { return "ingests keep coming" }, func() bool {
		if s.removeOthers() != nil {
			return false
		}
		_, ingests, err := s.look()
		now := fmt.Sprint(len(ingests), err)
		if now == last && len(ingests) == len(s.ingests) {
			same++
		} else {
			same = 0
		}
		last = now
		return same >= 5 && s.ordinary(2) == nil
	})
}

// manyWrites keeps thousands of Write streams open, each with an ingest of its own.
func manyWrites(s *storeTarget) error {
	const conns, streams = 6, 900
	var open []*raw
	defer func() {
		for _, r := range open {
			r.Close()
		}
	}()
	served, refused := 0, 0
	for c := 0; c < conns; c++ {
		r, err := s.raw(false)
		if err != nil {
			return err
		}
		open = append(open, r)
		var ids []uint32
		for i := 0; i < streams; i++ {
			id, err := rawWrite(r, fmt.Sprintf("many %d %d", c, i), []byte("some bytes"))
			if err != nil {
				return fmt.Errorf("stream %d of connection %d: %v", i, c, err)
			}
			ids = append(ids, id)
		}
		for _, id := range ids {
			st := r.streams[id]
			// An answer, or the end.
			if err := r.wait(func() bool { return len(st.data) > 0 || st.done }); err != nil {
				return err
			}
			r.mu.Lock()
			res := *st
			r.mu.Unlock()
			if len(res.data) > 0 {
				served++
				continue
			}
			if err := refusedBy("one of many Writes", res, true, codes.ResourceExhausted, codes.Unavailable); err != nil {
				return err
			}
			refused++
		}
	}
	if served < 2000 {
		return fmt.Errorf("of %d Writes %d were served and %d refused", conns*streams, served, refused)
	}
	if *verbose {
		fmt.Printf("     %d Writes were open at a time, %d more were refused\n", served, refused)
	}
	for _, r := range open {
		r.Close()
	}
	return s.quiet()
}

func writeDeadlines(s *storeTarget) error {
	data := pattern(10, 2<<20)
	expired := 0
	ctx, cancel := background()
	defer cancel()
	for i := 0; i < 60; i++ {
		ref := fmt.Sprintf("deadline %d", i)
		r, err := s.raw(false)
		if err != nil {
			return err
		}
		id, err := r.open(false, grpcHeaders(contentPrefix+"Write", field{"grpc-timeout", fmt.Sprintf("%du", 1+i*i*30)}))
		if err != nil {
			return err
		}
		for at := 0; at < len(data); at += 1 << 16 {
			if err := r.send(id, false, writeMessage(ref, at, data[at:at+1<<16])); err != nil {
				return err
			}
		}
		if err := r.send(id, true, nil); err != nil {
			return err
		}
		res, err := r.result(id)
		r.Close()
		if err != nil {
			return err
		}
		if res.status != int(codes.OK) {
			expired++
			if err := refusedBy("a Write whose time is up", res, true, codes.DeadlineExceeded, codes.Canceled); err != nil {
				return err
			}
		}
		var w *writing
		if err := eventually(func() string { return fmt.Sprintf("%q stays busy", ref) }, func() bool {
			w, err = openWrite(ctx, s.api, ref, 0)
			return err == nil
		}); err != nil {
			return err
		}
		if w.digest != sum(data[:w.offset]) || w.offset%(1<<16) != 0 {
			return fmt.Errorf("%q holds %d bytes, which are not what was sent", ref, w.offset)
		}
		w.cancel()
	}
	if expired == 0 {
		return fmt.Errorf("no deadline expired, not even of 1 us")
	}
	return s.quiet()
}
