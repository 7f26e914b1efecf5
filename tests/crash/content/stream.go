// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"../kit"
	api "github.com/containerd/containerd/api/services/content/v1"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
)

// stream is a Write under way, whose client is its only user.
type stream struct {
	c      *client
	ref    string
	st     api.Content_WriteClient
	cancel context.CancelFunc
	g      *ingest   // as acknowledged
	sum    hash.Hash // of what is held
}

func one(ref string, g *ingest) outcome {
	return outcome{ingests: map[string]*ingest{ref: g}}
}

// exchange sends a message and waits for its answer.
func (s *stream) exchange(req *api.WriteContentRequest) (*api.WriteContentResponse, error) {
	// An error of Send is only that the stream has ended; why, Recv tells.
	if err := s.st.Send(req); err != nil && err != io.EOF {
		return nil, err
	}
	return s.st.Recv()
}

// open begins or takes up an ingest. It returns nil when there is nothing to go on with.
func (c *client) open(ref string, data []byte, total int64) *stream {
	old := c.w.ingest(ref)
	win := kit.FromNow()
	g := &ingest{data: data, total: total, started: win, maybe: true}
	outs := []outcome{one(ref, old), one(ref, g)}
	dropped := old == nil
	if old != nil {
		switch {
		case total == 0:
			g = old
		case old.total == 0 && old.hi <= total:
			g = old.at(old.lo)
			g.hi, g.total = old.hi, total
		case old.total == total:
			g = old
		case old.total == 0 && old.lo <= total:
			// It depends on how much is held, which is not known exactly.
			total, g = 0, old
		default:
			dropped = true
		}
		outs = []outcome{one(ref, old), one(ref, g)}
	}
	what := fmt.Sprintf("STAT ref=%q total=%d before=%v", ref, total, old)
	for {
		c.w.begin(c.id, what, outs...)
		ctx, cancel := c.ctx()
		st, err := c.api.Write(ctx)
		s := &stream{c: c, ref: ref, st: st, cancel: cancel, sum: sha256.New()}
		var r *api.WriteContentResponse
		if err == nil {
			r, err = s.exchange(&api.WriteContentRequest{Action: api.WriteActionStat, Ref: ref, Total: total})
		}
		if err != nil {
			cancel()
			if _, lost := c.code(err); lost {
				return nil
			}
			c.w.endRefused(c.id, one(ref, old))
			if busy(err) {
				continue // its last stream has not ended yet
			}
			c.unexpected(what, err)
			return nil
		}
		if dropped {
			g.started.Hi = time.Now()
		}
		if r.Offset < g.lo || r.Offset > g.hi {
			c.w.endRefused(c.id, one(ref, old))
			c.w.failf("%s: answer %v, acknowledged %v", what, r, g)
			c.gone = true
			cancel()
			return nil
		}
		s.g = g.at(r.Offset)
		if r.Offset > 0 {
			s.g.maybe = false
		}
		s.g.data = data
		if !dropped {
			s.g.data = old.data
		}
		s.sum.Write(s.g.data[:r.Offset])
		c.w.end(c.id, one(ref, s.g))
		if !s.right(what, r, api.WriteActionStat) {
			cancel()
			return nil
		}
		return s
	}
}

// right compares an answer with what is held. The running digest may be of the algorithm that a COMMIT which
// failed has asked for.
func (s *stream) right(what string, r *api.WriteContentResponse, action api.WriteAction) bool {
	want := digest.Digest(fmt.Sprintf("sha256:%x", s.sum.Sum(nil)))
	if strings.HasPrefix(string(r.Digest), "sha512:") {
		want = digestOf(s.g.data[:s.g.lo], true)
	}
	if r.Action == action && r.Offset == s.g.lo && r.Total == s.g.total && r.Digest == want && s.g.started.Admits(r.StartedAt) {
		return true
	}
	s.c.w.failf("%s: answer %v, expected %v %s", what, r, s.g, want)
	s.c.gone = true
	return false
}

// ended handles an answer that is an error. It returns whether it was the right one.
func (s *stream) ended(what string, err error, want codes.Code, after outcome) bool {
	defer s.cancel()
	code, lost := s.c.code(err)
	if lost {
		return false
	}
	s.c.w.endRefused(s.c.id, after)
	if code != want {
		s.c.unexpected(fmt.Sprintf("%s (expected %v)", what, want), err)
		return false
	}
	return true
}

// write sends the next n bytes.
func (s *stream) write(n int) bool {
	chunk := s.g.data[s.g.lo : s.g.lo+int64(n)]
	what := fmt.Sprintf("WRITE ref=%q offset=%d of %d bytes", s.ref, s.g.lo, n)
	maybe := *s.g
	maybe.hi += int64(n)
	s.c.w.begin(s.c.id, what, one(s.ref, &maybe))
	r, err := s.exchange(&api.WriteContentRequest{Action: api.WriteActionWrite, Offset: s.g.lo, Data: chunk})
	if err != nil {
		s.ended(what, err, codes.OK, outcome{})
		return false
	}
	s.g = s.g.at(s.g.lo + int64(n))
	s.g.maybe = s.g.maybe && n == 0
	s.sum.Write(chunk)
	s.c.w.end(s.c.id, one(s.ref, s.g))
	return s.right(what, r, api.WriteActionWrite)
}

// chunk chooses how many of the bytes that are left go into one message.
func (s *stream) chunk(left int) int {
	n := left
	switch s.c.rng.Intn(4) {
	case 0:
		n = 1 + s.c.rng.Intn(4096)
	case 1:
		n = 32 << 10
	case 2:
		n = 1 << 20
	}
	if n > left {
		n = left
	}
	return n
}

// writeTo sends bytes until so many are held.
func (s *stream) writeTo(end int) bool {
	for s.g.lo < int64(end) {
		n := s.chunk(end - int(s.g.lo))
		// Large blobs are not sent in thousands of messages.
		if least := len(s.g.data) / 20; n < least {
			n = least
			if n > end-int(s.g.lo) {
				n = end - int(s.g.lo)
			}
		}
		if !s.write(n) {
			return false
		}
	}
	return true
}

// anew drops what is held, by a write at offset 0.
func (s *stream) anew(data []byte) bool {
	if s.g.lo == 0 {
		return true
	}
	n := s.c.rng.Intn(len(data) + 1)
	if s.g.total > 0 && int64(len(data)) > s.g.total {
		data = data[:s.g.total]
		if n > len(data) {
			n = len(data)
		}
	}
	what := fmt.Sprintf("WRITE ref=%q offset=0 of %d bytes, before=%v", s.ref, n, s.g)
	g := *s.g
	g.data, g.lo, g.hi = data, 0, int64(n)
	s.c.w.begin(s.c.id, what, one(s.ref, s.g), one(s.ref, &g))
	r, err := s.exchange(&api.WriteContentRequest{Action: api.WriteActionWrite, Data: data[:n]})
	if err != nil {
		s.ended(what, err, codes.OK, outcome{})
		return false
	}
	s.g = g.at(int64(n))
	s.sum = sha256.New()
	s.sum.Write(data[:n])
	s.c.w.end(s.c.id, one(s.ref, s.g))
	return s.right(what, r, api.WriteActionWrite)
}

// commitArgs says how to end a stream by COMMIT, with all bytes from the one held last on.
type commitArgs struct {
	expected digest.Digest
	total    int64
	labels   map[string]string
	want     codes.Code
}

func (s *stream) commit(a commitArgs) {
	rest := s.g.data[s.g.lo:]
	what := fmt.Sprintf("COMMIT ref=%q %d+%d bytes expected=%q total=%d labels=%s", s.ref, s.g.lo, len(rest), a.expected, a.total,
		kit.ShowLabels(a.labels))
	d := a.expected
	if a.want == codes.OK && d == "" {
		d = digestOf(s.g.data, false)
	}
	kept := *s.g
	kept.hi += int64(len(rest))
	outs := []outcome{one(s.ref, &kept)}
	gone := one(s.ref, nil)
	var b *blob
	switch a.want {
	case codes.OK:
		win := kit.FromNow()
		b = &blob{data: s.g.data, labels: kit.NoEmpty(a.labels), created: win, updated: win}
		gone.blobs = map[digest.Digest]*blob{d: b}
		outs[0].blobs = map[digest.Digest]*blob{d: nil}
		outs = append(outs, gone)
		s.c.own(d)
	case codes.AlreadyExists:
		outs = append(outs, gone)
	}
	s.c.w.begin(s.c.id, what, outs...)
	r, err := s.exchange(&api.WriteContentRequest{Action: api.WriteActionCommit, Offset: s.g.lo, Data: rest, Expected: a.expected,
		Total: a.total, Labels: a.labels})
	if err != nil {
		after := gone
		if a.want == codes.FailedPrecondition {
			after = one(s.ref, s.g.at(kept.hi))
			after.ingests[s.ref].maybe = s.g.maybe && len(rest) == 0
		}
		s.ended(what, err, a.want, after)
		return
	}
	defer s.cancel()
	if a.want != codes.OK {
		s.c.w.endRefused(s.c.id, outcome{})
		s.c.unexpected(what, fmt.Errorf("it succeeded, expected %v", a.want))
		return
	}
	b.created.Hi = time.Now()
	b.updated.Hi = b.created.Hi
	s.c.w.end(s.c.id, gone)
	if r.Action != api.WriteActionCommit || r.Offset != int64(len(s.g.data)) || r.Digest != d {
		s.c.w.failf("%s: answer %v", what, r)
	}
	if _, err := s.st.Recv(); err != io.EOF {
		if _, lost := s.c.code(err); !lost {
			s.c.unexpected(what+", the end", err)
		}
	}
}

// wrong sends a message that must be refused, which ends the stream and keeps the bytes.
func (s *stream) wrong() {
	what := fmt.Sprintf("WRITE ref=%q at a wrong offset, after %d", s.ref, s.g.lo)
	s.c.w.begin(s.c.id, what, one(s.ref, s.g))
	_, err := s.exchange(&api.WriteContentRequest{Action: api.WriteActionWrite, Offset: s.g.lo + 1 + int64(s.c.rng.Intn(9)), Data: []byte("x")})
	if err == nil {
		err = fmt.Errorf("it succeeded")
	}
	s.ended(what, err, codes.OutOfRange, one(s.ref, s.g))
}

// leave ends the stream and keeps what is held.
func (s *stream) leave() {
	defer s.cancel()
	if s.c.rng.Intn(2) == 0 {
		return // cancelled
	}
	what := fmt.Sprintf("END ref=%q", s.ref)
	s.c.w.begin(s.c.id, what, one(s.ref, s.g))
	if err := s.st.CloseSend(); err != nil {
		s.ended(what, err, codes.OK, outcome{})
		return
	}
	if _, err := s.st.Recv(); err != io.EOF {
		s.ended(what, err, codes.OK, outcome{})
		return
	}
	s.c.w.end(s.c.id, one(s.ref, s.g))
}

// drop sends bytes, and does not wait for the answer.
func (s *stream) drop() {
	defer s.cancel()
	n := s.chunk(len(s.g.data) - int(s.g.lo))
	maybe := *s.g
	maybe.hi += int64(n)
	s.c.w.begin(s.c.id, "WRITE, not waited for", one(s.ref, &maybe))
	err := s.st.Send(&api.WriteContentRequest{Action: api.WriteActionWrite, Offset: s.g.lo, Data: s.g.data[s.g.lo : s.g.lo+int64(n)]})
	if err != nil {
		_, err = s.st.Recv()
		s.ended("WRITE, not waited for", err, codes.OK, outcome{})
		return
	}
	s.c.w.end(s.c.id, one(s.ref, &maybe))
}

// aborted aborts the ingest under the stream, whose next message is told.
func (s *stream) aborted() {
	gone := one(s.ref, nil)
	defer s.cancel()
	if !s.c.call(fmt.Sprintf("Abort ref=%q, which is open", s.ref), codes.OK, []outcome{one(s.ref, s.g), gone}, gone,
		func(ctx context.Context) error {
			_, err := s.c.api.Abort(ctx, &api.AbortRequest{Ref: s.ref})
			return err
		}) {
		return
	}
	what := fmt.Sprintf("WRITE ref=%q, which was aborted", s.ref)
	s.c.w.begin(s.c.id, what, gone)
	_, err := s.exchange(&api.WriteContentRequest{Action: api.WriteActionWrite, Offset: s.g.lo, Data: []byte("x")})
	if err == nil {
		err = fmt.Errorf("it succeeded")
	}
	s.ended(what, err, codes.Aborted, gone)
}

// finish brings the stream to one of the ends that it may have.
func (s *stream) finish() {
	size := len(s.g.data)
	if int64(size) < s.g.lo {
		s.leave()
		return
	}
	part := int(s.g.lo) + s.c.rng.Intn(size-int(s.g.lo)+1)
	r := s.c.rng.Intn(100)
	if r < 60 && s.c.rng.Intn(2) == 0 {
		part = size // nothing comes with the COMMIT
	}
	if !s.writeTo(part) {
		return
	}
	// What was given another content may not be what its total says.
	whole := s.g.total == 0 || s.g.total == int64(size)
	switch {
	case r < 60 && whole:
		a := commitArgs{labels: s.c.labels(), want: codes.OK}
		switch s.c.rng.Intn(4) {
		case 0:
			a.expected = digestOf(s.g.data, true)
		case 1, 2:
			a.expected = digestOf(s.g.data, false)
		}
		if s.c.rng.Intn(2) == 0 {
			a.total = int64(size)
		}
		d := a.expected
		if d == "" {
			d = digestOf(s.g.data, false)
		}
		if s.c.w.blob(d) != nil {
			a.want = codes.AlreadyExists
		}
		s.commit(a)
	case r < 60, r < 66:
		a := commitArgs{want: codes.FailedPrecondition}
		if s.c.rng.Intn(2) == 0 {
			a.expected = digestOf([]byte("something else"), s.c.rng.Intn(2) == 0)
		} else {
			a.total = int64(size) + 1
		}
		s.commit(a)
	case r < 70:
		s.wrong()
	case r < 76:
		s.aborted()
	case r < 84:
		s.drop()
	default:
		s.leave()
	}
}
