// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const prefix = "/containerd.services.snapshots.v1.Snapshots/"

// patience is how long an answer may take before the test calls it missing.
const patience = 60 * time.Second

// result is what came back on one stream of a raw connection.
type result struct {
	done    bool
	status  int // grpc-status, -1 for none
	http    string
	message string
	data    []byte
	sink    func([]byte) // gets the data instead
	reset   *http2.ErrCode
}

func (r result) String() string {
	switch {
	case r.status >= 0:
		return fmt.Sprintf("grpc-status %d %q", r.status, r.message)
	case r.reset != nil:
		return "stream reset: " + r.reset.String()
	case r.http != "":
		return "HTTP status " + r.http
	}
	return "connection closed"
}

// raw is an HTTP/2 connection on which a test can send what no library would.
type raw struct {
	c  net.Conn
	fr *http2.Framer

	mu       sync.Mutex
	cond     *sync.Cond
	streams  map[uint32]*result
	next     uint32
	goaway   bool
	settings bool // the other side's have come, and were acknowledged
	closed   bool
	quiet    bool // send nothing of its own accord: no window updates, no acknowledgements
	grant    int  // send window updates for so many bytes at once
	taken    int  // bytes for which none was sent yet; the connection has one stream then
	pongs    int
	frame    int64            // the most that the other side takes in one frame
	initial  int64            // the other side's window for a new stream
	connWin  int64            // what may still be sent on the connection
	sendWin  map[uint32]int64 // and on each stream, relative to initial

	wmu sync.Mutex
	hb  bytes.Buffer
	he  *hpack.Encoder
}

// dialRaw opens a connection and sends the preface and the given settings.
func dialRaw(addr string, quiet bool, settings ...http2.Setting) (*raw, error) {
	c, err := net.Dial("unix", addr)
	if err != nil {
		return nil, err
	}
	r := &raw{c: c, fr: http2.NewFramer(c, c), streams: map[uint32]*result{}, next: 1, quiet: quiet,
		frame: 16384, initial: 65535, connWin: 65535, sendWin: map[uint32]int64{}}
	r.cond = sync.NewCond(&r.mu)
	r.he = hpack.NewEncoder(&r.hb)
	r.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.fr.MaxHeaderListSize = 1 << 20
	r.fr.AllowIllegalWrites = true
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		c.Close()
		return nil, err
	}
	if err := r.fr.WriteSettings(settings...); err != nil {
		c.Close()
		return nil, err
	}
	go r.read()
	return r, nil
}

func (r *raw) Close() error { return r.c.Close() }

func (r *raw) read() {
	for {
		f, err := r.fr.ReadFrame()
		r.mu.Lock()
		if err != nil {
			if se, ok := err.(http2.StreamError); ok {
				_ = se
				r.mu.Unlock()
				continue
			}
			r.closed = true
			r.cond.Broadcast()
			r.mu.Unlock()
			return
		}
		s := r.streams[f.Header().StreamID]
		if s == nil {
			s = &result{status: -1}
		}
		var reply func()
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				switch h.Name {
				case ":status":
					s.http = h.Value
				case "grpc-status":
					s.status, _ = strconv.Atoi(h.Value)
				case "grpc-message":
					s.message = h.Value
				}
			}
			s.done = s.done || f.StreamEnded()
		case *http2.DataFrame:
			if s.sink != nil {
				s.sink(f.Data())
			} else {
				s.data = append(s.data, f.Data()...)
			}
			s.done = s.done || f.StreamEnded()
			if r.taken += len(f.Data()); r.taken > r.grant && !r.quiet {
				id, n := f.StreamID, r.taken
				r.taken = 0
				reply = func() {
					r.fr.WriteWindowUpdate(0, uint32(n))
					r.fr.WriteWindowUpdate(id, uint32(n))
				}
			}
		case *http2.RSTStreamFrame:
			code := f.ErrCode
			s.reset = &code
			s.done = true
		case *http2.GoAwayFrame:
			r.goaway = true
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				r.initial = int64(v)
			}
			if !f.IsAck() && !r.quiet {
				frame, larger := f.Value(http2.SettingMaxFrameSize)
				reply = func() {
					r.fr.WriteSettingsAck()
					r.mu.Lock()
					r.settings = true
					// It holds from the acknowledgement on.
					if larger {
						r.frame = int64(frame)
					}
					r.cond.Broadcast()
					r.mu.Unlock()
				}
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				r.connWin += int64(f.Increment)
			} else {
				r.sendWin[f.StreamID] += int64(f.Increment)
			}
		case *http2.PingFrame:
			if f.IsAck() {
				r.pongs++
			} else if !r.quiet {
				data := f.Data
				reply = func() { r.fr.WritePing(true, data) }
			}
		}
		r.cond.Broadcast()
		r.mu.Unlock()
		if reply != nil {
			r.wmu.Lock()
			reply()
			r.wmu.Unlock()
		}
	}
}

// wait blocks until the condition, looked at under the lock, holds or the connection has ended.
func (r *raw) wait(cond func() bool) error {
	end := time.Now().Add(patience)
	t := time.AfterFunc(patience, func() { r.cond.Broadcast() })
	defer t.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !cond() && !r.closed {
		if time.Now().After(end) {
			return errors.New("no answer, and the connection stays open")
		}
		r.cond.Wait()
	}
	return nil
}

func (r *raw) result(id uint32) (result, error) {
	s := r.streams[id]
	err := r.wait(func() bool { return s.done })
	r.mu.Lock()
	defer r.mu.Unlock()
	return *s, err
}

// field is a header field.
type field struct{ name, value string }

func grpcHeaders(path string, more ...field) []field {
	return append([]field{{":method", "POST"}, {":scheme", "http"}, {":path", path},
		{":authority", "localhost"}, {"content-type", "application/grpc"}, {"te", "trailers"}}, more...)
}

// open starts a stream.
func (r *raw) open(end bool, fields []field) (uint32, error) {
	r.wmu.Lock()
	defer r.wmu.Unlock()
	r.mu.Lock()
	id := r.next
	r.next += 2
	r.streams[id] = &result{status: -1}
	r.mu.Unlock()
	r.hb.Reset()
	for _, f := range fields {
		r.he.WriteField(hpack.HeaderField{Name: f.name, Value: f.value})
	}
	block := r.hb.Bytes()
	first := block
	if len(first) > 16000 {
		first = first[:16000]
	}
	rest := block[len(first):]
	err := r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end,
		EndHeaders: len(rest) == 0})
	for err == nil && len(rest) > 0 {
		n := len(rest)
		if n > 16000 {
			n = 16000
		}
		err = r.fr.WriteContinuation(id, n == len(rest), rest[:n])
		rest = rest[n:]
	}
	return id, err
}

func (r *raw) data(id uint32, end bool, b []byte) error {
	r.wmu.Lock()
	defer r.wmu.Unlock()
	return r.fr.WriteData(id, end, b)
}

// send sends a body of any size as the windows allow, and stops when the stream has been answered.
func (r *raw) send(id uint32, end bool, b []byte) error {
	for {
		n := int64(len(b))
		r.mu.Lock()
		if n > r.frame {
			n = r.frame
		}
		r.mu.Unlock()
		done := false
		err := r.wait(func() bool {
			done = r.streams[id].done
			return done || n == 0 || (r.connWin > 0 && r.initial+r.sendWin[id] > 0)
		})
		if err != nil || done {
			return err
		}
		r.mu.Lock()
		if n > r.connWin {
			n = r.connWin
		}
		if n > r.initial+r.sendWin[id] {
			n = r.initial + r.sendWin[id]
		}
		closed := r.closed
		r.connWin -= n
		r.sendWin[id] -= n
		r.mu.Unlock()
		if closed {
			return nil
		}
		if err := r.data(id, end && int(n) == len(b), b[:n]); err != nil {
			return nil
		}
		b = b[n:]
		if len(b) == 0 {
			return nil
		}
	}
}

func (r *raw) rst(id uint32, code http2.ErrCode) error {
	r.wmu.Lock()
	defer r.wmu.Unlock()
	return r.fr.WriteRSTStream(id, code)
}

// call sends one stream with the given bytes as its whole body, which must fit the initial window.
func (r *raw) call(path string, body []byte, more ...field) (result, error) {
	id, err := r.open(false, grpcHeaders(path, more...))
	if err == nil {
		err = r.data(id, true, body)
	}
	if err != nil {
		// The other side may have closed already; what it said first counts.
		if _, ok := r.streams[id]; !ok {
			return result{status: -1}, err
		}
	}
	return r.result(id)
}

// message puts the five bytes of gRPC in front of a message.
func message(flag byte, length int, body []byte) []byte {
	out := make([]byte, 5, 5+len(body))
	out[0] = flag
	binary.BigEndian.PutUint32(out[1:], uint32(length))
	return append(out, body...)
}

func plain(body []byte) []byte { return message(0, len(body), body) }

// pb builds protobuf by hand.
type pb []byte

func (p pb) varint(v uint64) pb {
	var b [binary.MaxVarintLen64]byte
	return append(p, b[:binary.PutUvarint(b[:], v)]...)
}

func (p pb) bytes(field int, v []byte) pb {
	return append(p.varint(uint64(field)<<3|2).varint(uint64(len(v))), v...)
}

func (p pb) str(field int, v string) pb { return p.bytes(field, []byte(v)) }

func (p pb) label(field int, k, v string) pb { return p.bytes(field, pb{}.str(1, k).str(2, v)) }

// codec passes bytes through grpc-go untouched.
type codec struct{}

func (codec) Marshal(v interface{}) ([]byte, error) { return v.([]byte), nil }
func (codec) Unmarshal(data []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte{}, data...)
	return nil
}
func (codec) Name() string { return "proto" }

// init prepares a raw connection that has no reader.
func (r *raw) init() {
	r.cond = sync.NewCond(&r.mu)
	r.he = hpack.NewEncoder(&r.hb)
	r.sendWin = map[uint32]int64{}
}
