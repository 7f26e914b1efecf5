// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"

	"golang.org/x/net/http2"
)

var connectionAttacks = []attack{
	{"a_thousand_idle_connections_are_served_beside", idleConnections},
	{"a_thousand_half_open_connections_are_served_beside", halfOpen},
	{"slow_senders_of_headers_and_bodies_hold_nobody_up", slowSenders},
	{"connections_closed_in_the_middle_of_a_frame_are_forgotten", closedMidFrame},
	{"other_protocols_and_garbage_are_dropped", garbage},
	{"http2_protocol_errors_are_refused", protocolErrors},
	{"floods_of_control_frames_do_not_grow_memory", floods},
}

func mustBeDir(p string) error {
	st, err := os.Stat(p)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is no directory", p)
	}
	return nil
}

const crowd = 1000

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

func idleConnections(t *target) error {
	var open []*raw
	defer func() {
		for _, r := range open {
			r.Close()
		}
	}()
	for i := 0; i < crowd; i++ {
		r, err := dialRaw(t.d.Addr, false)
		if err != nil {
			return fmt.Errorf("connection %d: %v", i, err)
		}
		open = append(open, r)
		if i%10 == 0 {
			res, err := r.call(prefix+"Stat", plain(pb{}.str(2, "bottom")))
			if err != nil || res.status != 0 {
				return fmt.Errorf("Stat on connection %d: %v %v", i, res, err)
			}
		}
	}
	if err := t.ordinary(); err != nil {
		return err
	}
	res, err := open[crowd-1].call(prefix+"Stat", plain(pb{}.str(2, "bottom")))
	if err != nil || res.status != 0 {
		return fmt.Errorf("Stat on the last of %d connections: %v %v", crowd, res, err)
	}
	return nil
}

func halfOpen(t *target) error {
	var open []net.Conn
	defer func() { closeAll(open) }()
	starts := []string{"", "P", "PRI * HTTP/2.0\r\n", http2.ClientPreface, http2.ClientPreface + "\x00\x00", "GET / HTTP/1.1\r\nHost: x\r\n"}
	for i := 0; i < crowd; i++ {
		c, err := net.Dial("unix", t.d.Addr)
		if err != nil {
			return fmt.Errorf("connection %d: %v", i, err)
		}
		open = append(open, c)
		io.WriteString(c, starts[i%len(starts)]) // it may have been dropped already
	}
	return t.ordinary()
}

func slowSenders(t *target) error {
	var open []net.Conn
	defer func() { closeAll(open) }()
	// What one honest client sends for one call, byte by byte, on many connections; none ever ends.
	var wire bytes.Buffer
	wire.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&wire, nil)
	fr.WriteSettings()
	r := &raw{fr: fr, streams: map[uint32]*result{}, next: 1}
	r.init()
	id, err := r.open(false, grpcHeaders(prefix+"Prepare"))
	if err != nil {
		return err
	}
	body := plain(pb{}.str(2, "slow"))
	r.data(id, false, body[:len(body)-1])
	all := wire.Bytes()
	for i := 0; i < 200; i++ {
		c, err := net.Dial("unix", t.d.Addr)
		if err != nil {
			return err
		}
		open = append(open, c)
	}
	for at := range all {
		for _, c := range open {
			if _, err := c.Write(all[at : at+1]); err != nil {
				return fmt.Errorf("a slow sender was dropped at byte %d: %v", at, err)
			}
		}
		if at%50 == 0 {
			if err := t.ordinary(); err != nil {
				return err
			}
		}
	}
	return t.ordinary()
}

func closedMidFrame(t *target) error {
	rng := rand.New(rand.NewSource(*seed))
	var wire bytes.Buffer
	wire.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&wire, nil)
	fr.WriteSettings()
	r := &raw{fr: fr, streams: map[uint32]*result{}, next: 1}
	r.init()
	for i := 0; i < 3; i++ {
		id, err := r.open(false, grpcHeaders(prefix+"Stat"))
		if err != nil {
			return err
		}
		r.data(id, true, plain(pb{}.str(2, "bottom")))
	}
	all := wire.Bytes()
	for i := 0; i < 1000; i++ {
		c, err := net.Dial("unix", t.d.Addr)
		if err != nil {
			return fmt.Errorf("connection %d: %v", i, err)
		}
		c.Write(all[:rng.Intn(len(all)+1)])
		c.Close()
	}
	return nil
}

func garbage(t *target) error {
	rng := rand.New(rand.NewSource(*seed))
	noise := make([]byte, 1<<16)
	rng.Read(noise)
	for what, b := range map[string][]byte{
		"HTTP/1.1":           []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"HTTP/1.1 upgrade":   []byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
		"a TLS ClientHello":  append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, noise[:500]...),
		"noise":              noise,
		"zeros":              make([]byte, 1<<16),
		"ttrpc":              {0, 0, 0, 4, 0, 0, 0, 1, 1, 0, 'a', 'b', 'c', 'd'},
		"preface twice":      []byte(http2.ClientPreface + http2.ClientPreface),
		"preface, noise":     append([]byte(http2.ClientPreface), noise...),
		"a frame before all": {0, 0, 0, 4, 0, 0, 0, 0, 0},
	} {
		c, err := net.Dial("unix", t.d.Addr)
		if err != nil {
			return fmt.Errorf("%s: %v", what, err)
		}
		c.Write(b)
		c.Close()
	}
	// Frames whose payloads are noise, on connections that are kept until dropped.
	for i := 0; i < 300; i++ {
		r, err := dialRaw(t.d.Addr, false)
		if err != nil {
			return err
		}
		for n := 0; n < 20; n++ {
			at := rng.Intn(len(noise) - 300)
			r.wmu.Lock()
			err := r.fr.WriteRawFrame(http2.FrameType(rng.Intn(11)), http2.Flags(rng.Intn(256)), uint32(rng.Intn(5)), noise[at:at+rng.Intn(300)])
			r.wmu.Unlock()
			if err != nil {
				break
			}
		}
		r.Close()
	}
	return nil
}

func protocolErrors(t *target) error {
	for what, f := range map[string]func(*raw) error{
		"DATA on stream 0":          func(r *raw) error { return r.fr.WriteRawFrame(http2.FrameData, 0, 0, []byte("x")) },
		"HEADERS on an even stream": func(r *raw) error { return r.fr.WriteRawFrame(http2.FrameHeaders, 5, 2, []byte{0x83}) },
		"HEADERS with a bad index": func(r *raw) error {
			return r.fr.WriteRawFrame(http2.FrameHeaders, 5, 1, []byte{0xff, 0xff, 0xff, 0x7f})
		},
		"SETTINGS of 5 bytes":   func(r *raw) error { return r.fr.WriteRawFrame(http2.FrameSettings, 0, 0, []byte("12345")) },
		"PING of 7 bytes":       func(r *raw) error { return r.fr.WriteRawFrame(http2.FramePing, 0, 0, []byte("1234567")) },
		"RST of an idle stream": func(r *raw) error { return r.fr.WriteRawFrame(http2.FrameRSTStream, 0, 99, []byte{0, 0, 0, 8}) },
		"WINDOW_UPDATE of 0":    func(r *raw) error { return r.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, []byte{0, 0, 0, 0}) },
		"window overflow": func(r *raw) error {
			r.fr.WriteWindowUpdate(0, 1<<31-1)
			return r.fr.WriteWindowUpdate(0, 1<<31-1)
		},
		"CONTINUATION out of place":  func(r *raw) error { return r.fr.WriteContinuation(1, true, []byte{0x83}) },
		"PUSH_PROMISE from a client": func(r *raw) error { return r.fr.WriteRawFrame(http2.FramePushPromise, 4, 1, []byte{0, 0, 0, 2, 0x83}) },
		"a frame of 16 MiB":          func(r *raw) error { return r.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<24-1)) },
		"an initial window of 2^31": func(r *raw) error {
			return r.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		},
		"a maximum frame size of 0": func(r *raw) error { return r.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 0}) },
		"a header table of 4 GiB": func(r *raw) error {
			return r.fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 1<<32 - 1})
		},
		"a stream that depends on self": func(r *raw) error { return r.fr.WritePriority(1, http2.PriorityParam{StreamDep: 1}) },
		"more DATA than the window": func(r *raw) error {
			id, err := r.open(false, grpcHeaders(prefix+"Stat"))
			for i := 0; err == nil && i < 20000; i++ {
				err = r.data(id, false, make([]byte, 16384))
			}
			return err
		},
	} {
		r, err := dialRaw(t.d.Addr, false)
		if err != nil {
			return fmt.Errorf("%s: %v", what, err)
		}
		r.wmu.Lock()
		locked := what != "more DATA than the window"
		if !locked {
			r.wmu.Unlock()
		}
		f(r) // the daemon may well close before all is written
		if locked {
			r.wmu.Unlock()
		}
		r.Close()
		if err := t.ordinary(); err != nil {
			return fmt.Errorf("after %s: %v", what, err)
		}
	}
	return nil
}

func floods(t *target) error {
	before := t.peak()
	for what, f := range map[string]func(*raw, int) error{
		"PING": func(r *raw, i int) error { return r.fr.WritePing(false, [8]byte{byte(i)}) },
		"SETTINGS": func(r *raw, i int) error {
			return r.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i % 60000)})
		},
		"PRIORITY":      func(r *raw, i int) error { return r.fr.WritePriority(uint32(i*2+1), http2.PriorityParam{Weight: 1}) },
		"WINDOW_UPDATE": func(r *raw, i int) error { return r.fr.WriteWindowUpdate(0, 1) },
		"empty DATA":    func(r *raw, i int) error { return r.fr.WriteData(1, false, nil) },
		"unknown":       func(r *raw, i int) error { return r.fr.WriteRawFrame(http2.FrameType(0x77), 0, 0, []byte("xxxx")) },
	} {
		// It neither reads answers nor stops; the daemon may drop it, but must not queue without bound.
		c, err := net.Dial("unix", t.d.Addr)
		if err != nil {
			return err
		}
		w := &bytes.Buffer{}
		r := &raw{c: c, fr: http2.NewFramer(w, nil), streams: map[uint32]*result{}, next: 1}
		r.fr.AllowIllegalWrites = true
		r.init()
		w.WriteString(http2.ClientPreface)
		r.fr.WriteSettings()
		if what == "empty DATA" {
			r.open(false, grpcHeaders(prefix+"Stat"))
		}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 0; i < 200000; i++ {
				f(r, i)
				if w.Len() > 1<<16 || i == 199999 {
					if _, err := c.Write(w.Bytes()); err != nil {
						return
					}
					w.Reset()
				}
			}
		}()
		err = t.ordinary()
		// A daemon that stops reading from a client that does not read is right, so this may stay blocked.
		select {
		case <-stopped:
		default:
			if err == nil {
				err = t.ordinary()
			}
		}
		c.Close()
		<-stopped
		if err != nil {
			return fmt.Errorf("during a flood of %s: %v", what, err)
		}
	}
	if grew := t.peak() - before; grew > 256<<10+quarantine() {
		return fmt.Errorf("resident memory grew by %d KiB", grew)
	}
	return nil
}
