// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"net"
	"strings"
	"sync"
	"time"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var streamAttacks = []attack{
	{"unknown_methods_and_services_are_unimplemented", unknownMethods},
	{"wrong_length_prefixes_are_refused", lengthPrefixes},
	{"compressed_messages_are_refused_or_read_right", compressedFlag},
	{"unary_calls_without_or_with_two_messages_do_no_harm", messageCount},
	{"requests_that_are_not_grpc_are_refused", notGRPC},
	{"giant_headers_do_not_fill_memory", giantHeaders},
	{"strange_metadata_is_ignored_or_refused", strangeMetadata},
	{"strange_timeouts_do_no_harm", strangeTimeouts},
	{"expired_deadlines_leave_whole_effects", deadlines},
	{"streams_reset_in_the_middle_leave_whole_effects", resets},
	{"rapid_resets_are_survived_and_forgotten", rapidResets},
	{"cancelled_lists_are_let_go", cancelledLists},
	{"list_clients_that_never_read_do_not_block_others", deafLists},
	{"thousands_of_concurrent_streams_are_served_or_refused", manyStreams},
	{"streams_above_the_servers_limit_disturb_nobody_else", tooManyStreams},
}

// refusedBy says that a raw call was answered with one of the codes, or, if may, cut off in some other way.
func refusedBy(what string, res result, may bool, want ...codes.Code) error {
	for _, w := range want {
		if res.status == int(w) {
			return nil
		}
	}
	if res.status < 0 && may {
		return nil
	}
	return fmt.Errorf("%s: %v, expected %v", what, res, want)
}

func rawOnce(t *target, path string, body []byte, more ...field) (result, error) {
	r, err := dialRaw(t.d.Addr, false)
	if err != nil {
		return result{status: -1}, err
	}
	defer r.Close()
	return r.call(path, body, more...)
}

func unknownMethods(t *target) error {
	for _, p := range []string{prefix + "Nothing", prefix, prefix + "prepare", prefix + "Prepare/", prefix + "Prepare?x", "/containerd.services.snapshots.v1.Snapshot/Prepare",
		"/containerd.services.snapshots.v2.Snapshots/Prepare", "/containerd.services.content.v1.Content/Info", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
		"/Snapshots/Prepare", "/", "//", "/x", "/" + strings.Repeat("x", 4000), "/%00/%00", "/../" + prefix + "Stat"} {
		res, err := rawOnce(t, p, plain(pb{}.str(2, "bottom")))
		if err != nil {
			return fmt.Errorf("%q: %v", p, err)
		}
		if err := refusedBy(fmt.Sprintf("path %q", p), res, false, codes.Unimplemented); err != nil {
			return err
		}
	}
	// Many of them, so that nothing is kept for each.
	for i := 0; i < 5000; i++ {
		if err := mustCode("unknown method", t.invoke(fmt.Sprintf("/no.such.Service%d/Method%d", i, i), nil), codes.Unimplemented); err != nil {
			return err
		}
	}
	return nil
}

func lengthPrefixes(t *target) error {
	good := pb{}.str(2, "bottom")
	for _, m := range []string{"Stat", "Prepare", "List", "Cleanup"} {
		for what, b := range map[string][]byte{
			"longer than the body":      message(0, len(good)+1, good),
			"of 1 MiB":                  message(0, 1<<20, good),
			"of 16 MiB":                 message(0, 16<<20, good),
			"of 16 MiB and one":         message(0, 16<<20+1, good),
			"of 4 GiB":                  message(0, -1, good),
			"of 2 GiB":                  message(0, 1<<31, good),
			"of one byte too few":       message(0, len(good)-1, good),
			"cut after one byte":        {0},
			"cut after four bytes":      {0, 0, 0, 0},
			"whole, and part of a next": append(plain(good), 0, 0, 0),
		} {
			res, err := rawOnce(t, prefix+m, b)
			if err != nil {
				return fmt.Errorf("%s, length prefix %s: %v", m, what, err)
			}
			allowed := []codes.Code{codes.Internal, codes.InvalidArgument, codes.ResourceExhausted, codes.Unimplemented, codes.Canceled, codes.Unavailable}
			if what == "whole, and part of a next" {
				allowed = append(allowed, codes.OK, codes.AlreadyExists)
			}
			if err := refusedBy(m+", length prefix "+what, res, true, allowed...); err != nil {
				return err
			}
		}
	}
	return t.removeOthers()
}

func compressedFlag(t *target) error {
	good := pb{}.str(2, "bottom")
	for what, c := range map[string]struct {
		flag byte
		more []field
	}{
		"flag set, no encoding":      {1, nil},
		"flag set, identity":         {1, []field{{"grpc-encoding", "identity"}}},
		"flag set, unknown encoding": {1, []field{{"grpc-encoding", "snappy"}}},
		"flag set, gzip, but plain":  {1, []field{{"grpc-encoding", "gzip"}}},
		"flag 2":                     {2, nil},
		"flag 255":                   {255, nil},
	} {
		res, err := rawOnce(t, prefix+"Stat", message(c.flag, len(good), good), c.more...)
		if err != nil {
			return fmt.Errorf("%s: %v", what, err)
		}
		allowed := []codes.Code{codes.Internal, codes.Unimplemented, codes.InvalidArgument, codes.Canceled, codes.Unavailable}
		if c.more == nil || strings.Contains(what, "identity") || strings.Contains(what, "unknown") {
			// gRPC core takes the message as it stands, and so reads it right.
			allowed = append(allowed, codes.OK)
		}
		if err := refusedBy(what, res, true, allowed...); err != nil {
			return err
		}
	}
	for _, enc := range []string{"gzip", "deflate", "identity"} {
		res, err := rawOnce(t, prefix+"Stat", plain(good), field{"grpc-encoding", enc})
		if err != nil {
			return err
		}
		if err := refusedBy("a plain message though "+enc+" was announced", res, false, codes.OK, codes.Unimplemented); err != nil {
			return err
		}
	}
	// An offer to understand compressed answers is no reason to send one.
	res, err := rawOnce(t, prefix+"Stat", plain(good), field{"grpc-accept-encoding", "gzip,deflate"})
	if err != nil {
		return err
	}
	if res.status != 0 || len(res.data) < 5 || res.data[0] != 0 {
		return fmt.Errorf("with grpc-accept-encoding: %v, data %q", res, res.data)
	}
	return nil
}

func messageCount(t *target) error {
	for _, m := range methods {
		res, err := rawOnce(t, prefix+m, nil)
		if err != nil {
			return fmt.Errorf("%s without a message: %v", m, err)
		}
		if err := refusedBy(m+" without a message", res, true, codes.Internal, codes.InvalidArgument, codes.Unimplemented, codes.Canceled); err != nil {
			return err
		}
	}
	two := append(plain(pb{}.str(2, "one of two")), plain(pb{}.str(2, "two of two"))...)
	res, err := rawOnce(t, prefix+"Prepare", two)
	if err != nil {
		return err
	}
	ctx, cancel := background()
	defer cancel()
	if _, err := t.api.Stat(ctx, &api.StatSnapshotRequest{Key: "two of two"}); err == nil {
		return fmt.Errorf("the second message of a unary call had an effect (answer %v)", res)
	}
	return t.removeOthers()
}

func notGRPC(t *target) error {
	base := func(change func(map[string]string)) []field {
		m := map[string]string{":method": "POST", ":scheme": "http", ":path": prefix + "Stat", ":authority": "localhost",
			"content-type": "application/grpc", "te": "trailers"}
		change(m)
		var out []field
		for _, k := range []string{":method", ":scheme", ":path", ":authority"} {
			if v, ok := m[k]; ok {
				out = append(out, field{k, v})
				delete(m, k)
			}
		}
		for k, v := range m {
			out = append(out, field{k, v})
		}
		return out
	}
	cases := map[string][]field{
		"GET":                base(func(m map[string]string) { m[":method"] = "GET" }),
		"PUT":                base(func(m map[string]string) { m[":method"] = "PUT" }),
		"no method":          base(func(m map[string]string) { delete(m, ":method") }),
		"no path":            base(func(m map[string]string) { delete(m, ":path") }),
		"empty path":         base(func(m map[string]string) { m[":path"] = "" }),
		"path without slash": base(func(m map[string]string) { m[":path"] = "Stat" }),
		"no scheme":          base(func(m map[string]string) { delete(m, ":scheme") }),
		"HTML":               base(func(m map[string]string) { m["content-type"] = "text/html" }),
		"no content type":    base(func(m map[string]string) { delete(m, "content-type") }),
		"unknown pseudo":     base(func(m map[string]string) { m[":foo"] = "x" }),
		"connection header":  base(func(m map[string]string) { m["connection"] = "close" }),
		"upper case name":    base(func(m map[string]string) { m["X-Upper"] = "x" }),
		"newline in a value": base(func(m map[string]string) { m["x-a"] = "a\r\nb: c" }),
		"NUL in a value":     base(func(m map[string]string) { m["x-a"] = "a\x00b" }),
		"empty name":         base(func(m map[string]string) { m[""] = "x" }),
		"nothing at all":     {},
	}
	for what, fields := range cases {
		r, err := dialRaw(t.d.Addr, false)
		if err != nil {
			return err
		}
		id, err := r.open(false, fields)
		if err == nil {
			err = r.data(id, true, plain(pb{}.str(2, "bottom")))
		}
		if err == nil {
			_, err = r.result(id) // any answer will do, even a good one
		} else {
			err = nil
		}
		r.Close()
		if err != nil {
			return fmt.Errorf("%s: %v", what, err)
		}
	}
	for _, what := range []string{"GET", "HTML"} {
		r, err := dialRaw(t.d.Addr, false)
		if err != nil {
			return err
		}
		id, _ := r.open(false, cases[what])
		r.data(id, true, plain(pb{}.str(2, "bottom")))
		res, err := r.result(id)
		r.Close()
		if err != nil {
			return fmt.Errorf("%s: %v", what, err)
		}
		if what == "GET" && res.status == 0 {
			return fmt.Errorf("%s: %v", what, res)
		}
	}
	return nil
}

func giantHeaders(t *target) error {
	big := strings.Repeat("x", 1<<20)
	var lots []field
	for i := 0; i < 20000; i++ {
		lots = append(lots, field{fmt.Sprintf("x-h%d", i), "some value"})
	}
	start := t.peak()
	for what, more := range map[string][]field{
		"one of 1 MiB":       {{"x-big", big}},
		"20000 small ones":   lots,
		"a name of 1 MiB":    {{"x-" + big, "v"}},
		"a binary of 1 MiB":  {{"x-bin", big}},
		"a timeout of 1 MiB": {{"grpc-timeout", big}},
	} {
		res, err := rawOnce(t, prefix+"Stat", plain(pb{}.str(2, "bottom")), more...)
		if err != nil {
			return fmt.Errorf("%s: %v", what, err)
		}
		if res.status == int(codes.OK) {
			continue // gRPC core 1.51 lets most of them pass; the memory is judged below
		}
		if err := refusedBy("headers: "+what, res, true, codes.ResourceExhausted, codes.Internal, codes.Unavailable, codes.Unknown,
			codes.InvalidArgument); err != nil {
			return err
		}
	}
	if grew := t.peak() - start; grew > 64<<10+quarantine() {
		return fmt.Errorf("resident memory grew by %d KiB for headers", grew)
	}
	// Continuations that never end: the connection must be dropped before they fill the memory.
	r, err := dialRaw(t.d.Addr, false)
	if err != nil {
		return err
	}
	defer r.Close()
	before := t.peak()
	if err := r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x00}}); err != nil {
		return err
	}
	r.c.SetWriteDeadline(time.Now().Add(patience))
	sent := 0
	for ; sent < 256<<20; sent += 16000 {
		// One literal header field that goes on and on would end at its length; so many small ones.
		var block []byte
		for len(block) < 15900 {
			block = append(block, 0x00, 3, 'a', 'b', 'c', 60)
			block = append(block, big[:60]...)
		}
		if sent == 0 {
			block = block[1:]
		}
		if err := r.fr.WriteContinuation(1, false, block); err != nil {
			break
		}
		r.mu.Lock()
		over := r.closed || r.goaway
		r.mu.Unlock()
		if over {
			break
		}
	}
	if grew := t.peak() - before; grew > 128<<10+quarantine() {
		return fmt.Errorf("after %d KiB of continuations: resident memory grew by %d KiB", sent>>10, grew)
	}
	return nil
}

func strangeMetadata(t *target) error {
	for what, more := range map[string][]field{
		"a namespace":              {{"containerd-namespace", "../../etc"}},
		"two namespaces":           {{"containerd-namespace", "a"}, {"containerd-namespace", "b"}},
		"an empty namespace":       {{"containerd-namespace", ""}},
		"a lease":                  {{"containerd-lease", strings.Repeat("l", 2000)}},
		"binary that is no base64": {{"x-bin", "!!!"}},
		"binary, empty":            {{"x-bin", ""}},
		"tracing":                  {{"traceparent", "00-zz"}, {"grpc-trace-bin", "AAAA"}, {"grpc-tags-bin", "!"}},
		"a long user agent":        {{"user-agent", strings.Repeat("u", 2000)}},
		"grpc-status":              {{"grpc-status", "0"}},
		"previous attempts":        {{"grpc-previous-rpc-attempts", "99999999999999999999"}},
	} {
		res, err := rawOnce(t, prefix+"Stat", plain(pb{}.str(2, "bottom")), more...)
		if err != nil {
			return fmt.Errorf("%s: %v", what, err)
		}
		if err := refusedBy(what, res, true, codes.OK, codes.Internal, codes.InvalidArgument, codes.Unknown,
			codes.Unavailable); err != nil {
			return err
		}
	}
	return nil
}

func strangeTimeouts(t *target) error {
	for _, v := range []string{"", "0", "1", "S", "-1S", "1.5S", "1x", "99999999H", "99999999999999999999H", "abc", "1 S", "0n", "00000001S", "\u0661S"} {
		res, err := rawOnce(t, prefix+"Stat", plain(pb{}.str(2, "bottom")), field{"grpc-timeout", v})
		if err != nil {
			return fmt.Errorf("grpc-timeout %q: %v", v, err)
		}
		if err := refusedBy(fmt.Sprintf("grpc-timeout %q", v), res, true, codes.OK, codes.DeadlineExceeded, codes.Internal, codes.InvalidArgument,
			codes.Unknown, codes.Canceled); err != nil {
			return err
		}
	}
	return nil
}

// wholeOrNothing checks each key that a cut-off Prepare may have made: either it is not there, or it is there
// with its directories.
func wholeOrNothing(t *target, keys []string) (made int, err error) {
	ctx, cancel := background()
	defer cancel()
	for _, k := range keys {
		r, err := t.api.Mounts(ctx, &api.MountsRequest{Key: k})
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return made, fmt.Errorf("Mounts %q: %v", k, err)
		}
		made++
		for _, o := range append([]string{r.Mounts[0].Source}, r.Mounts[0].Options...) {
			for _, p := range []string{"upperdir=", "workdir=", ""} {
				if strings.HasPrefix(o, p+"/") {
					if err := mustBeDir(strings.TrimPrefix(o, p)); err != nil {
						return made, fmt.Errorf("%q: %v", k, err)
					}
				}
			}
		}
	}
	return made, nil
}

func deadlines(t *target) error {
	var keys []string
	expired, fine := 0, 0
	for i := 0; i < 300; i++ {
		key := fmt.Sprintf("deadline %d", i)
		keys = append(keys, key)
		// From a time that is over before the call is read to one that lets some through.
		v := fmt.Sprintf("%dn", 1+i*i*40)
		if i*i*40 > 9999999 {
			v = fmt.Sprintf("%du", i*i*40/1000)
		}
		res, err := rawOnce(t, prefix+"Prepare", plain(pb{}.str(2, key).str(3, "default/1/layer")), field{"grpc-timeout", v})
		if err != nil {
			return fmt.Errorf("grpc-timeout %s: %v", v, err)
		}
		switch {
		case res.status == int(codes.OK):
			fine++
		case res.status == int(codes.DeadlineExceeded) || res.status == int(codes.Canceled) || res.status < 0:
			expired++
		default:
			return fmt.Errorf("grpc-timeout %s: %v", v, res)
		}
	}
	if expired == 0 {
		return fmt.Errorf("no deadline expired, not even of 1 ns")
	}
	made, err := wholeOrNothing(t, keys)
	if err != nil {
		return err
	}
	if made < fine {
		return fmt.Errorf("%d Prepares were answered, %d are there", fine, made)
	}
	return t.removeOthers()
}

func resets(t *target) error {
	rng := rand.New(rand.NewSource(*seed))
	var keys []string
	r, err := dialRaw(t.d.Addr, false)
	if err != nil {
		return err
	}
	defer func() { r.Close() }()
	for i := 0; i < 1500; i++ {
		key := fmt.Sprintf("reset %d", i)
		keys = append(keys, key)
		m, body := "Prepare", plain(pb{}.str(2, key).str(3, "default/1/layer"))
		switch rng.Intn(6) {
		case 0:
			m, body = "List", plain(nil)
		case 1:
			m, body = "Cleanup", plain(nil)
		case 2:
			m, body = "Usage", plain(pb{}.str(2, "active-1"))
		}
		id, err := r.open(false, grpcHeaders(prefix+m))
		if err == nil {
			if cut := rng.Intn(len(body) + 1); rng.Intn(2) == 0 {
				err = r.data(id, false, body[:cut])
			} else {
				err = r.data(id, true, body)
			}
		}
		if err == nil {
			err = r.rst(id, []http2.ErrCode{http2.ErrCodeCancel, http2.ErrCodeNo, http2.ErrCodeInternal, http2.ErrCode(0xffff)}[rng.Intn(4)])
		}
		if err != nil || rng.Intn(200) == 0 {
			r.Close()
			if r, err = dialRaw(t.d.Addr, false); err != nil {
				return err
			}
		}
	}
	if err := t.ordinary(); err != nil {
		return err
	}
	// What was sent whole may still be under way, and nothing tells when it is over.
	r.Close()
	err = settled(t, func() error { _, err := wholeOrNothing(t, keys); return err })
	if err != nil {
		return err
	}
	return t.removeOthers()
}

// settled waits until several Lists in a row agree, then looks.
func settled(t *target, look func() error) error {
	last, same := -1, 0
	if err := eventually(func() string { return "the number of snapshots keeps changing" }, func() bool {
		ctx, cancel := background()
		defer cancel()
		seen, err := list(ctx, t.api)
		if err == nil && len(seen) == last {
			same++
		} else {
			same = 0
		}
		last = len(seen)
		return same >= 5 && t.ordinary() == nil
	}); err != nil {
		return err
	}
	return look()
}

func rapidResets(t *target) error {
	// gRPC core works through what is sent before it looks at others, so the flood has an end here.
	var wg sync.WaitGroup
	for c := 0; c < 4; c++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r, err := dialRaw(t.d.Addr, false)
			if err != nil {
				return
			}
			defer r.Close()
			for i := 0; i < 5000 && err == nil; i++ {
				var id uint32
				if id, err = r.open(i%2 == 0, grpcHeaders(prefix+"Stat")); err == nil {
					err = r.rst(id, http2.ErrCodeCancel)
				}
			}
		}()
	}
	wg.Wait()
	// Others may be told to come back later, but not for ever.
	var err error
	return eventually(func() string { return fmt.Sprintf("after rapid resets: %v", err) }, func() bool {
		ctx, cancel := background()
		defer cancel()
		_, err = t.api.Stat(ctx, &api.StatSnapshotRequest{Key: "bottom"})
		return err == nil || status.Code(err) != codes.ResourceExhausted
	})
}

// fill makes snapshots with large labels, so that a List is many messages.
func fill(t *target, n int) error {
	ctx, cancel := background()
	defer cancel()
	for i := 0; i < n; i++ {
		if _, err := t.api.View(ctx, &api.ViewSnapshotRequest{Key: fmt.Sprintf("fill %d", i), Parent: "default/0/layer",
			Labels: map[string]string{"fill": strings.Repeat("f", 4000)}}); err != nil {
			return err
		}
	}
	return nil
}

func cancelledLists(t *target) error {
	if err := fill(t, 1000); err != nil {
		return err
	}
	for i := 0; i < 200; i++ {
		ctx, cancel := context.WithCancel(context.Background())
		st, err := t.api.List(ctx, &api.ListSnapshotsRequest{})
		if err != nil {
			cancel()
			return err
		}
		if i%2 == 0 {
			if _, err := st.Recv(); err != nil {
				cancel()
				return fmt.Errorf("List: %v", err)
			}
		}
		cancel()
	}
	return t.removeOthers()
}

func deafLists(t *target) error {
	if err := fill(t, 1000); err != nil {
		return err
	}
	var open []*raw
	defer func() {
		for _, r := range open {
			r.Close()
		}
	}()
	before := t.peak()
	const conns, streams = 20, 20
	for c := 0; c < conns; c++ {
		// Half of them grant no window at all, half the usual one and then never more.
		var settings []http2.Setting
		if c%2 == 0 {
			settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		}
		r, err := dialRaw(t.d.Addr, true, settings...)
		if err != nil {
			return err
		}
		open = append(open, r)
		for s := 0; s < streams; s++ {
			id, err := r.open(false, grpcHeaders(prefix+"List"))
			if err == nil {
				err = r.data(id, true, plain(nil))
			}
			if err != nil {
				return err
			}
		}
	}
	// And some that do not even read the socket.
	for c := 0; c < 20; c++ {
		conn, err := net.Dial("unix", t.d.Addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		io.WriteString(conn, http2.ClientPreface)
		fr := http2.NewFramer(conn, nil)
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		fr.WriteWindowUpdate(0, 1<<30)
		r := &raw{c: conn, fr: fr, streams: map[uint32]*result{}, next: 1}
		r.init()
		for s := 0; s < streams; s++ {
			id, err := r.open(false, grpcHeaders(prefix+"List"))
			if err == nil {
				err = r.data(id, true, plain(nil))
			}
			if err != nil {
				return err
			}
		}
	}
	for i := 0; i < 20; i++ {
		if err := t.ordinary(); err != nil {
			return fmt.Errorf("while %d Lists wait for their readers: %v", conns*streams+20*streams, err)
		}
	}
	if grew := t.peak() - before; grew > 400<<10+quarantine() {
		return fmt.Errorf("resident memory grew by %d KiB for Lists nobody reads", grew)
	}
	for _, r := range open {
		r.Close()
	}
	return t.removeOthers()
}

// streamResults opens n streams on one connection, each with its Stat, and says how they ended.
func streamResults(t *target, n int) (served, refused, cutOff int, err error) {
	r, err := dialRaw(t.d.Addr, false)
	if err != nil {
		return 0, 0, 0, err
	}
	defer r.Close()
	// Only what has been acknowledged binds either side.
	if err := r.wait(func() bool { return r.settings }); err != nil {
		return 0, 0, 0, err
	}
	body := plain(pb{}.str(2, "bottom"))
	var ids []uint32
	for i := 0; i < n; i++ {
		id, err := r.open(false, grpcHeaders(prefix+"Stat"))
		if err != nil {
			break
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		// Windows hold: the bodies are a few thousand times 13 bytes.
		if err := r.send(id, true, body); err != nil {
			break
		}
	}
	for _, id := range ids {
		res, err := r.result(id)
		if err != nil {
			return 0, 0, 0, err
		}
		switch {
		case res.status == 0:
			served++
		case res.status > 0:
			if err := refusedBy("one of many streams", res, true, codes.ResourceExhausted, codes.Unavailable); err != nil {
				return 0, 0, 0, err
			}
			refused++
		default:
			cutOff++
		}
	}
	return served, refused, cutOff, nil
}

// manyStreams keeps to the number of streams that the server allows on a connection, on several at once.
func manyStreams(t *target) error {
	const conns, streams = 5, 1000
	var wg sync.WaitGroup
	var mu sync.Mutex
	var served, cutOff int
	var failed error
	for c := 0; c < conns; c++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s, _, n, err := streamResults(t, streams)
			mu.Lock()
			defer mu.Unlock()
			served, cutOff = served+s, cutOff+n
			if err != nil {
				failed = err
			}
		}()
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	if served == 0 || cutOff > 0 {
		return fmt.Errorf("of %d streams %d were served and %d cut off", conns*streams, served, cutOff)
	}
	return nil
}

// tooManyStreams does not keep to it: gRPC core drops such a connection, which may not disturb others.
func tooManyStreams(t *target) error {
	if _, _, _, err := streamResults(t, 5000); err != nil {
		return err
	}
	return t.ordinary()
}
