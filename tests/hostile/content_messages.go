// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	content "github.com/containerd/containerd/api/services/content/v1"
	store "github.com/containerd/containerd/content"
	"github.com/containerd/containerd/filters"
	ptypes "github.com/gogo/protobuf/types"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var storeMessages = []storeAttack{
	{"malformed_content_messages_are_an_invalid_argument", storeMalformed},
	{"garbage_and_mutated_content_messages_get_an_ordinary_code", storeGarbage},
	{"content_strings_that_are_not_utf8_or_hold_nul_are_refused", storeBadStrings},
	{"digests_of_every_malformed_sort_are_refused", badDigests},
	{"references_are_never_paths", pathRefs},
	{"references_above_64_KiB_are_refused_and_at_64_KiB_kept", longRefs},
	{"negative_and_huge_numbers_are_refused_or_mean_all", strangeNumbers},
	{"a_huge_total_takes_no_room", hugeTotal},
	{"labels_beyond_the_caps_are_refused_and_keep_the_ingest", storeLabels},
	{"bad_update_masks_of_blobs_change_nothing", storeMasks},
	{"unknown_actions_are_refused_and_keep_the_ingest", unknownActions},
	{"content_filters_select_what_containerd_selects", storeFilters},
	{"hostile_content_filters_end_soon", storeBombs},
	{"writes_of_16_MiB_pass_and_larger_ones_keep_the_ingest", storeMessageSize},
}

var storeMethods = []string{"Info", "Update", "List", "Delete", "Read", "Status", "ListStatuses", "Write", "Abort"}

// invoke sends bytes as the one message of a call of any kind, and reads all answers.
func (s *storeTarget) invoke(method string, body []byte) error {
	ctx, cancel := background()
	defer cancel()
	st, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, contentPrefix+method, grpc.ForceCodec(codec{}))
	if err != nil {
		return err
	}
	if err := st.SendMsg(body); err != nil && err != io.EOF {
		return err
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	for {
		var out []byte
		if err := st.RecvMsg(&out); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func storeMalformed(s *storeTarget) error {
	bodies := map[string][]byte{
		"tag without value":         {0x0a},
		"length beyond the end":     {0x0a, 5, 'a', 'b'},
		"giant length":              {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"length of 2^31":            {0x0a, 0x80, 0x80, 0x80, 0x80, 0x08},
		"length of 2^32-1":          {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 'x'},
		"varint that never ends":    bytes.Repeat([]byte{0xff}, 11),
		"end of a group not begun":  {0x7c},
		"group without end":         {0x7b, 0x08, 0x01},
		"field number 0":            {0x00, 0x00},
		"wire type 6":               {0x0e, 0x01},
		"wire type 7":               {0x0f, 0x01},
		"short fixed64":             {0x79, 1, 2, 3},
		"short fixed32":             {0x7d, 1, 2},
		"data longer than it is":    {0x32, 0x20, 'k'},
		"data of 2^31 bytes":        {0x32, 0x80, 0x80, 0x80, 0x80, 0x08, 'x'},
		"data of a length cut off":  {0x32, 0x80},
		"data twice, the last torn": append(pb{}.str(6, "one"), 0x32, 9, 't'),
	}
	for _, m := range storeMethods {
		for what, b := range bodies {
			if err := mustCode(m+" with "+what, s.invoke(m, b), codes.InvalidArgument); err != nil {
				return err
			}
		}
	}
	return nil
}

// goodMessages are one message of each method, which may do something.
func goodMessages(s *storeTarget) map[string][]byte {
	d := string(s.big)
	return map[string][]byte{
		"Info":         pb{}.str(1, d),
		"Update":       pb{}.bytes(1, pb{}.str(1, "sha256:"+strings.Repeat("0", 64)).label(5, "k", "v")).bytes(2, pb{}.str(1, "labels.k")),
		"List":         pb{}.str(1, "labels.n==1").str(1, "digest~=/^sha256/"),
		"Delete":       pb{}.str(1, "sha256:"+strings.Repeat("0", 64)),
		"Read":         append(pb{}.str(1, d), pb{}.varint(2<<3).varint(5).varint(3<<3).varint(10)...),
		"Status":       pb{}.str(1, "left-1"),
		"ListStatuses": pb{}.str(1, "ref~=/left/"),
		"Write": append(pb{}.varint(1<<3).varint(1).str(2, "mutated"), pb{}.varint(3<<3).varint(100).bytes(6, pattern(9, 100)).
			label(7, "k", "v")...),
		"Abort": pb{}.str(1, "mutated"),
	}
}

func storeGarbage(s *storeTarget) error {
	rng := rand.New(rand.NewSource(*seed))
	ordinary := []codes.Code{codes.OK, codes.InvalidArgument, codes.NotFound, codes.OutOfRange, codes.AlreadyExists, codes.FailedPrecondition}
	for _, m := range storeMethods {
		good := goodMessages(s)[m]
		for i := 0; i < 250; i++ {
			b := make([]byte, rng.Intn(300))
			rng.Read(b)
			if i%2 == 0 {
				b = append([]byte{}, good...)
				for n := 1 + rng.Intn(4); n > 0 && len(b) > 0; n-- {
					at := rng.Intn(len(b))
					switch rng.Intn(4) {
					case 0:
						b[at] = byte(rng.Intn(256))
					case 1:
						b[at] ^= 1 << uint(rng.Intn(8))
					case 2:
						b = b[:at]
					case 3:
						b = append(b[:at], append([]byte{byte(rng.Intn(256))}, b[at:]...)...)
					}
				}
			}
			if err := mustCode(fmt.Sprintf("%s with %x", m, b), s.invoke(m, b), ordinary...); err != nil {
				return err
			}
		}
	}
	return s.removeOthers()
}

func storeBadStrings(s *storeTarget) error {
	d := string(s.big)
	for what, bad := range map[string]string{"not UTF-8": "a\xffb", "a surrogate": "a\xed\xa0\x80", "NUL": "a\x00b", "overlong": "\xc0\xaf", "cut off": "a\xe2\x82"} {
		for m, b := range map[string][]byte{
			"Info digest":         pb{}.str(1, bad),
			"Update digest":       pb{}.bytes(1, pb{}.str(1, bad)),
			"Update label key":    pb{}.bytes(1, pb{}.str(1, d).label(5, bad, "v")),
			"Update label value":  pb{}.bytes(1, pb{}.str(1, d).label(5, "k", bad)),
			"Update path":         pb{}.bytes(1, pb{}.str(1, d)).bytes(2, pb{}.str(1, "labels."+bad)),
			"List filter":         pb{}.str(1, "digest=="+bad),
			"Delete digest":       pb{}.str(1, bad),
			"Read digest":         pb{}.str(1, bad),
			"Status ref":          pb{}.str(1, bad),
			"ListStatuses filter": pb{}.str(1, "ref=="+bad),
			"Write ref":           pb{}.str(2, bad),
			"Write expected":      pb{}.str(2, "r").str(4, bad),
			"Write label":         pb{}.varint(1<<3).varint(2).str(2, "r").label(7, "k", bad),
			"Abort ref":           pb{}.str(1, bad),
		} {
			if err := mustCode(m+": "+what, s.invoke(strings.Fields(m)[0], b), codes.InvalidArgument); err != nil {
				return err
			}
		}
	}
	return s.removeOthers()
}

func badDigests(s *storeTarget) error {
	hex := string(s.big)[len("sha256:"):]
	bad := []string{"", ":", "sha256", "sha256:", hex, ":" + hex, "sha256:" + hex[1:], "sha256:" + hex + "0", "sha256:" + strings.ToUpper(hex), "SHA256:" + hex,
		"sha256:" + hex[:63] + "g", "sha256:" + hex[:63] + "/", "sha256:" + hex[:62] + "..", "sha256:../" + hex[3:], "sha256:" + strings.Repeat("../", 21) + "a",
		"sha256::" + hex, "sha256:sha256:" + hex, " sha256:" + hex, "sha256:" + hex + " ", "sha256: " + hex, "sha256:" + hex + "\n", "sha512:" + hex,
		"sha512:" + hex + hex + "0", "sha384:" + strings.Repeat("0", 96), "sha1:" + hex[:40], "md5:" + hex[:32], "blake3:" + hex, "../" + hex, "sha256/" + hex, "sha256:" + hex + ":x",
		"sha256+b64:" + hex, "unknown:" + hex, "sha256:" + strings.Repeat("0", 1<<20), strings.Repeat("s", 1<<20), "sha256:" + strings.Repeat("é", 32)}
	ctx, cancel := background()
	defer cancel()
	for _, b := range bad {
		d := digest.Digest(b)
		calls := map[string]func() error{
			"Info":   func() error { _, err := s.api.Info(ctx, &content.InfoRequest{Digest: d}); return err },
			"Delete": func() error { _, err := s.api.Delete(ctx, &content.DeleteContentRequest{Digest: d}); return err },
			"Read":   func() error { _, err := readBlob(ctx, s.api, d, 0, 0); return err },
			"Update": func() error {
				_, err := s.api.Update(ctx, &content.UpdateRequest{Info: content.Info{Digest: d, Labels: map[string]string{"a": "b"}}})
				return err
			},
			"Write": func() error {
				if b == "" {
					return status.Error(codes.InvalidArgument, "an empty one is none")
				}
				st, err := s.api.Write(ctx)
				if err != nil {
					return err
				}
				w := &writing{st: st}
				_, err = w.send(&content.WriteContentRequest{Action: content.WriteActionStat, Ref: "digests", Expected: d})
				return err
			},
			"COMMIT": func() error {
				if b == "" {
					return status.Error(codes.InvalidArgument, "an empty one is none")
				}
				w, err := openWrite(ctx, s.api, "digests", 0)
				if err != nil {
					return err
				}
				defer w.cancel()
				return w.commit(d, nil)
			},
		}
		for m, f := range calls {
			if err := mustCode(fmt.Sprintf("%s of %.80q", m, b), f(), codes.InvalidArgument); err != nil {
				return err
			}
		}
	}
	return s.removeOthers()
}

// keepRefs begins an ingest of each reference, each with bytes of its own.
func keepRefs(ctx context.Context, a content.ContentClient, refs []string) error {
	for i, ref := range refs {
		w, err := openWrite(ctx, a, ref, 0)
		if err == nil {
			_, err = w.write(0, pattern(int64(i), 10+i))
		}
		if err == nil {
			err = w.end()
		}
		if err != nil {
			return fmt.Errorf("Write of the reference %.60q: %v", ref, err)
		}
	}
	return nil
}

// refsAreKept checks what keepRefs has made.
func refsAreKept(ctx context.Context, a content.ContentClient, refs []string) error {
	for i, ref := range refs {
		r, err := a.Status(ctx, &content.StatusRequest{Ref: ref})
		if err != nil || r.Status.Ref != ref || r.Status.Offset != int64(10+i) {
			return fmt.Errorf("Status of the reference %.60q: %.200v %v", ref, r, err)
		}
		if len(ref) > 60000 {
			continue // longer than filters may be
		}
		quoted := `ref=="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(ref) + `"`
		if l, err := a.ListStatuses(ctx, &content.ListStatusesRequest{Filters: []string{quoted}}); err != nil || len(l.Statuses) != 1 {
			return fmt.Errorf("ListStatuses of the reference %.60q: %.200v %v", ref, l, err)
		}
	}
	return nil
}

// strangeRefs would all do harm as paths.
func strangeRefs() []string {
	return []string{".", "..", "/", "../../../../../../../../../tmp/lighter-was-here", "/tmp/lighter-was-here", "a/../../b", "1", "1.ref", "01", "2.ref/..", "lock",
		"../metadata.db", "../blobs/sha256/x", "a\nb", "a b", "a\tb", "-rf", "*", "$(touch /tmp/lighter-was-here)", "%s%n%s", `"`, `'`, `\`, "é", "e\u0301", "\u202e", "\U0001f600",
		"default/1/layer-sha256:" + strings.Repeat("0", 64), strings.Repeat("x", 256), strings.Repeat("y", 4096), strings.Repeat("ö/", 5000), " ", "ref\r\n"}
}

func pathRefs(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	refs := strangeRefs()
	if err := keepRefs(ctx, s.api, refs); err != nil {
		return err
	}
	if err := refsAreKept(ctx, s.api, refs); err != nil {
		return err
	}
	if _, err := os.Lstat("/tmp/lighter-was-here"); err == nil {
		return fmt.Errorf("a reference became a path")
	}
	// And each of them is a blob in the end.
	for i, ref := range refs {
		data := pattern(int64(i), 10+i)
		w, err := openWrite(ctx, s.api, ref, 0)
		if err != nil {
			return err
		}
		if w.offset != int64(len(data)) {
			return fmt.Errorf("the reference %.60q goes on at %d, expected %d", ref, w.offset, len(data))
		}
		if err := w.commit(sum(data), nil); err != nil {
			return fmt.Errorf("COMMIT of the reference %.60q: %v", ref, err)
		}
		if got, err := readBlob(ctx, s.api, sum(data), 0, 0); err != nil || !bytes.Equal(got, data) {
			return fmt.Errorf("the blob of the reference %.60q: %x %v", ref, got, err)
		}
	}
	return s.removeOthers()
}

func longRefs(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	long := strings.Repeat("r", 64<<10)
	if err := keepRefs(ctx, s.api, []string{long, long[1:] + "s"}); err != nil {
		return err
	}
	if err := refsAreKept(ctx, s.api, []string{long, long[1:] + "s"}); err != nil {
		return err
	}
	for _, ref := range []string{"", long + "r", strings.Repeat("r", 1<<20), strings.Repeat("é", 32<<10+1)} {
		what := fmt.Sprintf("a reference of %d bytes", len(ref))
		_, err := openWrite(ctx, s.api, ref, 0)
		if err := mustCode("Write of "+what, err, codes.InvalidArgument); err != nil {
			return err
		}
		_, err = s.api.Status(ctx, &content.StatusRequest{Ref: ref})
		if err := mustCode("Status of "+what, err, codes.InvalidArgument); err != nil {
			return err
		}
		_, err = s.api.Abort(ctx, &content.AbortRequest{Ref: ref})
		if err := mustCode("Abort of "+what, err, codes.InvalidArgument); err != nil {
			return err
		}
	}
	return s.removeOthers()
}

func strangeNumbers(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	all := pattern(bigBytes, bigBytes)
	for _, c := range []struct {
		offset, size int64
		want         codes.Code
		n            int
	}{
		{-1, 0, codes.OK, bigBytes}, {math.MinInt64, 10, codes.OK, 10}, {0, -1, codes.OK, bigBytes}, {0, math.MinInt64, codes.OK, bigBytes},
		{0, math.MaxInt64, codes.OK, bigBytes}, {1, math.MaxInt64, codes.OK, bigBytes - 1}, {bigBytes, 0, codes.OK, 0}, {bigBytes, math.MaxInt64, codes.OK, 0},
		{bigBytes + 1, 0, codes.OutOfRange, 0}, {math.MaxInt64, math.MaxInt64, codes.OutOfRange, 0}, {math.MaxInt64, -1, codes.OutOfRange, 0},
		{bigBytes - 1, 1, codes.OK, 1}, {bigBytes - 1, 2, codes.OK, 1}, {65536, 1, codes.OK, 1}, {65535, 65537, codes.OK, 65537},
	} {
		got, err := readBlob(ctx, s.api, s.big, c.offset, c.size)
		if err := mustCode(fmt.Sprintf("Read of %d+%d", c.offset, c.size), err, c.want); err != nil {
			return err
		}
		from := c.offset
		if from < 0 {
			from = 0
		}
		if c.want == codes.OK && !bytes.Equal(got, all[from:from+int64(c.n)]) {
			return fmt.Errorf("Read of %d+%d: %d bytes, expected %d", c.offset, c.size, len(got), c.n)
		}
	}
	for _, c := range []struct {
		offset, total int64
		want          codes.Code
	}{
		{-1, 0, codes.OutOfRange}, {math.MinInt64, 0, codes.OutOfRange}, {1, 0, codes.OutOfRange}, {11, 0, codes.OutOfRange}, {math.MaxInt64, 0, codes.OutOfRange},
		{math.MaxInt64 - 4, 0, codes.OutOfRange}, {10, -1, codes.InvalidArgument}, {10, math.MinInt64, codes.InvalidArgument},
	} {
		for _, action := range []content.WriteAction{content.WriteActionWrite, content.WriteActionCommit} {
			w, err := openWrite(ctx, s.api, "numbers", 0)
			if err != nil {
				return err
			}
			if w.offset == 0 {
				if _, err := w.write(0, all[:10]); err != nil {
					return err
				}
			}
			if w.offset != 10 || w.digest != sum(all[:10]) {
				return fmt.Errorf("after a refused message it holds %d bytes, %s", w.offset, w.digest)
			}
			_, err = w.send(&content.WriteContentRequest{Action: action, Offset: c.offset, Total: c.total, Data: []byte("12345")})
			w.cancel()
			if err := mustCode(fmt.Sprintf("%v at %d, total %d", action, c.offset, c.total), err, c.want); err != nil {
				return err
			}
		}
	}
	return s.removeOthers()
}

func hugeTotal(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	for _, total := range []int64{math.MaxInt64, 1 << 50, 1 << 40} {
		ref := fmt.Sprintf("huge %d", total)
		w, err := openWrite(ctx, s.api, ref, total)
		if err != nil {
			return err
		}
		if _, err := w.write(0, pattern(3, 1000)); err != nil {
			return fmt.Errorf("total %d: %v", total, err)
		}
		if r, err := s.api.Status(ctx, &content.StatusRequest{Ref: ref}); err != nil || r.Status.Total != total || r.Status.Offset != 1000 {
			return fmt.Errorf("total %d: Status %v %v", total, r, err)
		}
		if err := mustCode("COMMIT of less than the total", w.commit("", nil), codes.FailedPrecondition); err != nil {
			return err
		}
		w.cancel()
	}
	return s.removeOthers()
}

func storeLabels(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	data := pattern(4, 1000)
	many := map[string]string{}
	for i := 0; i < 10000; i++ {
		many[fmt.Sprintf("l%d", i)] = "v"
	}
	much := map[string]string{}
	for i := 0; i < 300; i++ {
		much[fmt.Sprintf("l%d", i)] = strings.Repeat("v", 4000)
	}
	bad := map[string]map[string]string{
		"a label of 4097 bytes": {"k": strings.Repeat("v", 4096)}, "a key of 4097 bytes": {strings.Repeat("k", 4096): "v"}, "a key of 1 MiB": {strings.Repeat("k", 1<<20): ""},
		"10000 labels": many, "labels of more than 1 MiB": much,
	}
	for what, labels := range bad {
		w, err := openWrite(ctx, s.api, "labels", 0)
		if err != nil {
			return err
		}
		if w.offset == 0 {
			if _, err := w.write(0, data); err != nil {
				return err
			}
		}
		err = w.commit(sum(data), labels)
		w.cancel()
		if err := mustCode("COMMIT with "+what, err, codes.InvalidArgument); err != nil {
			return err
		}
		if _, err := s.api.Info(ctx, &content.InfoRequest{Digest: sum(data)}); status.Code(err) != codes.NotFound {
			return fmt.Errorf("after a COMMIT with %s that was refused, Info: %v", what, err)
		}
		_, err = s.api.Update(ctx, &content.UpdateRequest{Info: content.Info{Digest: s.big, Labels: labels}})
		if err := mustCode("Update with "+what, err, codes.InvalidArgument); err != nil {
			return err
		}
	}
	most := map[string]string{"k": strings.Repeat("v", 4095), strings.Repeat("k", 4095): "v", "empty": "", "": "nameless"}
	w, err := openWrite(ctx, s.api, "labels", 0)
	if err != nil {
		return err
	}
	if w.offset != int64(len(data)) {
		return fmt.Errorf("after refused COMMITs %d bytes are held", w.offset)
	}
	if err := w.commit(sum(data), most); err != nil {
		return fmt.Errorf("COMMIT with labels of 4096 bytes: %v", err)
	}
	delete(most, "empty")
	r, err := s.api.Info(ctx, &content.InfoRequest{Digest: sum(data)})
	if err != nil || !reflect.DeepEqual(r.Info.Labels, most) {
		return fmt.Errorf("labels of 4096 bytes: %.200v %v", r, err)
	}
	// Labels that come one at a time stop at the same cap.
	for i := 0; i < 300 && err == nil; i++ {
		k := fmt.Sprintf("l%d", i)
		_, err = s.api.Update(ctx, &content.UpdateRequest{Info: content.Info{Digest: sum(data), Labels: map[string]string{k: strings.Repeat("v", 4000)}},
			UpdateMask: &ptypes.FieldMask{Paths: []string{"labels." + k}}})
	}
	if err := mustCode("Update that makes more than 1 MiB of labels", err, codes.InvalidArgument); err != nil {
		return err
	}
	// Of keys that come twice the last one counts.
	d := string(sum(data))
	if err := s.invoke("Update", pb{}.bytes(1, pb{}.str(1, d).label(5, "twice", "1").label(5, "twice", "2"))); err != nil {
		return fmt.Errorf("Update with a key twice: %v", err)
	}
	if r, err := s.api.Info(ctx, &content.InfoRequest{Digest: sum(data)}); err != nil || !reflect.DeepEqual(r.Info.Labels, map[string]string{"twice": "2"}) {
		return fmt.Errorf("a label that came twice: %.200v %v", r, err)
	}
	return s.removeOthers()
}

func storeMasks(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	for _, paths := range [][]string{{""}, {"size"}, {"digest"}, {"created_at"}, {"label"}, {"Labels"}, {"labels."}, {"labels.a", "size"}, {"labels", "x"}, {".labels"}, {"*"},
		{strings.Repeat("x", 1<<20)}} {
		_, err := s.api.Update(ctx, &content.UpdateRequest{Info: content.Info{Digest: s.big, Labels: map[string]string{"a": "b"}},
			UpdateMask: &ptypes.FieldMask{Paths: paths}})
		if err := mustCode(fmt.Sprintf("Update with the mask %.60q", paths), err, codes.InvalidArgument); err != nil {
			return err
		}
	}
	if err := mustCode("Update without an info", s.invoke("Update", nil), codes.InvalidArgument); err != nil {
		return err
	}
	_, err := s.api.Update(ctx, &content.UpdateRequest{Info: content.Info{Digest: sum([]byte("unknown"))}})
	return mustCode("Update of the unknown", err, codes.NotFound)
}

func unknownActions(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	for _, action := range []content.WriteAction{3, -1, math.MaxInt32, math.MinInt32, 100} {
		w, err := openWrite(ctx, s.api, "actions", 0)
		if err != nil {
			return err
		}
		if w.offset == 0 {
			if _, err := w.write(0, []byte("bytes")); err != nil {
				return err
			}
		}
		if w.offset != 5 {
			return fmt.Errorf("after an unknown action %d bytes are held", w.offset)
		}
		_, err = w.send(&content.WriteContentRequest{Action: action, Offset: 5, Data: []byte("more")})
		w.cancel()
		if err := mustCode(fmt.Sprintf("action %d", action), err, codes.InvalidArgument); err != nil {
			return err
		}
	}
	return s.removeOthers()
}

// sameSelection compares what filters select with what containerd's own would.
func sameSelection(s *storeTarget, fs ...string) error {
	ctx, cancel := background()
	defer cancel()
	blobs, err := listBlobs(ctx, s.api, fs...)
	r, err2 := s.api.ListStatuses(ctx, &content.ListStatusesRequest{Filters: fs})
	f, bad := filters.ParseAll(fs...)
	if bad != nil {
		if err := mustCode(fmt.Sprintf("List with the bad filter %q", fs), err, codes.InvalidArgument); err != nil {
			return err
		}
		return mustCode(fmt.Sprintf("ListStatuses with the bad filter %q", fs), err2, codes.InvalidArgument)
	}
	if err != nil || err2 != nil {
		return fmt.Errorf("with the good filter %q: List %v, ListStatuses %v", fs, err, err2)
	}
	var got, want []string
	for d := range blobs {
		got = append(got, string(d))
	}
	for _, i := range r.Statuses {
		got = append(got, i.Ref)
	}
	for d, i := range s.blobs {
		if f.Match(store.AdaptInfo(store.Info{Digest: d, Size: i.Size_, Labels: i.Labels})) {
			want = append(want, string(d))
		}
	}
	for ref := range s.ingests {
		if f.Match(filters.AdapterFunc(func(path []string) (string, bool) {
			if path[0] != "ref" {
				return "", false
			}
			return ref, true
		})) {
			want = append(want, ref)
		}
	}
	sort.Strings(got)
	sort.Strings(want)
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("with %q: %q, containerd selects %q", fs, got, want)
	}
	return nil
}

func storeFilters(s *storeTarget) error {
	d := string(s.big)
	names := strings.NewReplacer("name", "digest", "bottom", d, "kind", "ref", "active", "left-1")
	for _, f := range filterWords {
		for _, f := range []string{f, names.Replace(f)} {
			if err := sameSelection(s, f); err != nil {
				return err
			}
		}
	}
	for _, fs := range [][]string{nil, {""}, {"digest==" + d}, {"digest==" + d, "labels.n==1"}, {"digest!=" + d}, {"digest~=/^sha256:[0-7]/"}, {"size==1"}, {"size!=1"}, {"size"},
		{"labels.n"}, {"labels.n==1,labels.odd==1"}, {`labels."a.b/c"=="x y"`}, {"ref==left-1"}, {"ref~=/left-[02]/"}, {"ref~=/left/,ref!=left-1"}, {"digest." + d}, {"digest.x==" + d},
		{"ref==left-1", "digest==" + d}, {"ref==left-1", "("}} {
		if err := sameSelection(s, fs...); err != nil {
			return err
		}
	}
	return nil
}

func storeBombs(s *storeTarget) error {
	many := make([]string, 100000)
	for i := range many {
		many[i] = "ref==x"
	}
	for what, fs := range map[string][]string{
		"a path of a million fields":        {strings.Repeat("a.", 1000000) + "a"},
		"a million selectors":               {strings.Repeat("ref==x,", 1000000) + "ref"},
		"100000 filters":                    many,
		"a value of 10 MiB":                 {"ref==" + strings.Repeat("x", 10<<20)},
		"an open quote and 10 MiB":          {`ref=="` + strings.Repeat("x", 10<<20)},
		"10 MiB of backslashes":             {`ref=="` + strings.Repeat(`\`, 10<<20)},
		"100000 opening parentheses":        {"ref~=/" + strings.Repeat("(", 100000) + "/"},
		"100000 nested groups":              {"ref~=/" + strings.Repeat("(", 100000) + "a" + strings.Repeat(")", 100000) + "/"},
		"an alternation of 200000 branches": {"ref~=/" + strings.Repeat("a#", 200000) + "/"},
		"nested repeats":                    {"ref~=/(a*)*b/", "ref~=/(a+)+$b/", "digest~=/((a{1,100}){1,100}){1,100}/", "digest~=/(.*)*b/", "digest~=/(.*a){25}b/"},
		"a million repeats":                 {"digest~=/(((((((((a{10}){10}){10}){10}){10}){10}){10}){10}){10}){10}/"},
	} {
		for _, m := range []string{"List", "ListStatuses"} {
			var body pb
			for _, f := range fs {
				body = body.str(1, f)
			}
			if err := mustCode(m+" with "+what, s.invoke(m, body), codes.OK, codes.InvalidArgument, codes.ResourceExhausted); err != nil {
				return err
			}
		}
	}
	return nil
}

func storeMessageSize(s *storeTarget) error {
	ctx, cancel := background()
	defer cancel()
	const limit = 16 << 20
	data := pattern(16, limit)
	// Action, offset 0 (absent), and what stands before the bytes; the message as a whole may have 16 MiB.
	head := len(pb{}.varint(1<<3).varint(1)) + len(pb{}.varint(6<<3|2).varint(limit))
	w, err := openWrite(ctx, s.api, "size", 0)
	if err != nil {
		return err
	}
	most := data[:limit-head]
	if _, err := w.write(0, most); err != nil {
		return fmt.Errorf("a WRITE of exactly 16 MiB: %v", err)
	}
	if w.offset != int64(len(most)) || w.digest != sum(most) {
		return fmt.Errorf("a WRITE of 16 MiB: %d bytes held, %s", w.offset, w.digest)
	}
	for _, n := range []int{limit - head + 1, limit, 3 * limit} {
		w, err := openWrite(ctx, s.api, "size "+fmt.Sprint(n), 0)
		if err != nil {
			return err
		}
		if _, err := w.write(0, []byte("first")); err != nil {
			return err
		}
		_, err = w.write(5, make([]byte, n))
		w.cancel()
		if err := mustCode(fmt.Sprintf("a WRITE of %d bytes", n), err, codes.ResourceExhausted); err != nil {
			return err
		}
		r, err := s.api.Status(ctx, &content.StatusRequest{Ref: "size " + fmt.Sprint(n)})
		if err != nil || r.Status.Offset != 5 {
			return fmt.Errorf("after a WRITE of %d bytes: %v %v", n, r, err)
		}
	}
	if err := w.commit(sum(most), nil); err != nil {
		return err
	}
	for _, m := range storeMethods {
		if err := mustCode(m+" with a message of more than 16 MiB", s.invoke(m, pb{}.bytes(15, make([]byte, limit))), codes.ResourceExhausted); err != nil {
			return err
		}
		// An unknown field is no reason to refuse; what is missing then may be.
		if err := mustCode(m+" with an unknown field of 1 MiB", s.invoke(m, pb{}.bytes(15, make([]byte, 1<<20))), codes.OK, codes.InvalidArgument); err != nil {
			return err
		}
	}
	return s.removeOthers()
}

// refsSurvive is with a daemon of its own, which is killed, and stopped.
func refsSurvive(dir string) error {
	s := &small{}
	s.config.Exe, s.config.Dir, s.config.Root = *exe, dir, filepath.Join(dir, "root")
	if err := s.start(); err != nil {
		return err
	}
	defer func() { s.kill() }()
	ctx, cancel := background()
	defer cancel()
	refs := append(strangeRefs(), strings.Repeat("r", 64<<10))
	if err := keepRefs(ctx, s.api, refs); err != nil {
		return err
	}
	for i := 0; i < 4; i++ {
		if i%2 == 0 {
			s.kill()
		} else {
			s.conn.Close()
			if err := s.d.Stop(stopLimit); err != nil {
				return err
			}
		}
		if err := s.start(); err != nil {
			return err
		}
		if err := refsAreKept(ctx, s.api, refs); err != nil {
			return fmt.Errorf("after restart %d: %v", i, err)
		}
	}
	s.conn.Close()
	return s.d.Stop(stopLimit)
}
