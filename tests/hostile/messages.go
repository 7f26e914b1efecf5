// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	ptypes "github.com/gogo/protobuf/types"
	"google.golang.org/grpc/codes"
)

var messageAttacks = []attack{
	{"malformed_protobuf_is_an_invalid_argument", malformed},
	{"mutated_messages_get_an_ordinary_code", mutated},
	{"strings_that_are_not_utf8_or_hold_nul_are_refused", badStrings},
	{"empty_keys_are_refused", emptyKeys},
	{"keys_are_never_paths", pathKeys},
	{"long_keys_are_refused_above_the_cap_and_kept_below", longKeys},
	{"labels_above_4096_bytes_are_refused_and_at_4096_kept", giantLabels},
	{"ten_thousand_labels_are_refused_or_kept_whole", manyLabels},
	{"of_duplicate_map_keys_and_fields_the_last_wins", duplicates},
	{"unknown_fields_are_ignored", unknownFields},
	{"bad_update_masks_change_nothing", badMasks},
	{"strange_timestamps_in_update_are_ignored", strangeTimes},
	{"commit_with_a_hostile_parent_changes_nothing", commitParents},
	{"messages_of_16_MiB_pass_and_larger_ones_do_not", messageSize},
	{"a_gzip_bomb_is_refused_without_being_unpacked", gzipBomb},
}

var methods = []string{"Prepare", "View", "Mounts", "Commit", "Remove", "Stat", "Update", "List", "Usage", "Cleanup"}

func malformed(t *target) error {
	bodies := map[string][]byte{
		"tag without value":            {0x0a},
		"length beyond the end":        {0x0a, 5, 'a', 'b'},
		"giant length":                 {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"length of 2^31":               {0x0a, 0x80, 0x80, 0x80, 0x80, 0x08},
		"length of 2^32-1":             {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 'x'},
		"varint that never ends":       bytes.Repeat([]byte{0xff}, 11),
		"end of a group not begun":     {0x7c},
		"group without end":            {0x7b, 0x08, 0x01},
		"field number 0":               {0x00, 0x00},
		"wire type 6":                  {0x0e, 0x01},
		"wire type 7":                  {0x0f, 0x01},
		"short fixed64":                {0x79, 1, 2, 3},
		"short fixed32":                {0x7d, 1, 2},
		"valid field, then truncation": append(pb{}.str(1, "x"), 0x12, 0x20, 'k'),
	}
	for _, m := range methods {
		for what, b := range bodies {
			if err := mustCode(m+" with "+what, t.invoke(m, b), codes.InvalidArgument); err != nil {
				return err
			}
		}
	}
	for _, m := range []string{"Prepare", "View", "Commit"} {
		entry := append(pb{}.str(2, "k").str(3, "p"), pb{}.bytes(4, []byte{0x0a, 9, 'x'})...)
		if err := mustCode(m+" with a broken label", t.invoke(m, entry), codes.InvalidArgument); err != nil {
			return err
		}
	}
	for what, info := range map[string][]byte{
		"a broken Info":       {0x0a, 9, 'x'},
		"a broken timestamp":  append(pb{}.str(1, "bottom"), pb{}.bytes(4, []byte{0x08})...),
		"a broken label":      append(pb{}.str(1, "bottom"), pb{}.bytes(6, []byte{0x0a, 4})...),
		"a mask in its place": pb{}.bytes(1, []byte{0xff, 0xfe}),
	} {
		if err := mustCode("Update with "+what, t.invoke("Update", pb{}.bytes(2, info)), codes.InvalidArgument); err != nil {
			return err
		}
	}
	return mustCode("Update with a broken mask",
		t.invoke("Update", pb{}.bytes(2, pb{}.str(1, "bottom")).bytes(3, []byte{0x0a, 7})), codes.InvalidArgument)
}

// mutated flips, cuts and repeats bytes of good requests. Whatever comes of it, the answer must be a
// code that says something about the request.
func mutated(t *target) error {
	rng := rand.New(rand.NewSource(*seed))
	good := map[string]pb{
		"Prepare": pb{}.str(1, "s").str(2, "mutant").str(3, "default/1/layer").label(4, "a", "b").label(4, "c", "d"),
		"View":    pb{}.str(1, "s").str(2, "mutant").str(3, "default/1/layer").label(4, "a", "b"),
		"Mounts":  pb{}.str(1, "s").str(2, "bottom"),
		"Commit":  pb{}.str(1, "s").str(2, "mutant").str(3, "no such").label(4, "a", "b").str(5, "default/1/layer"),
		"Remove":  pb{}.str(1, "s").str(2, "no such thing at all"),
		"Stat":    pb{}.str(1, "s").str(2, "bottom"),
		"Update":  pb{}.str(1, "s").bytes(2, pb{}.str(1, "no such").label(6, "a", "b").bytes(4, []byte{8, 1})).bytes(3, pb{}.str(1, "labels.x")),
		"List":    pb{}.str(1, "s").str(2, "kind==active,labels.n~=/[0-9]+/").str(2, "name==x"),
		"Usage":   pb{}.str(1, "s").str(2, "bottom"),
		"Cleanup": pb{}.str(1, "s"),
	}
	for i := 0; i < 4000; i++ {
		m := methods[rng.Intn(len(methods))]
		b := append([]byte{}, good[m]...)
		for n := 1 + rng.Intn(4); n > 0 && len(b) > 0; n-- {
			switch rng.Intn(4) {
			case 0:
				b[rng.Intn(len(b))] ^= 1 << uint(rng.Intn(8))
			case 1:
				b = b[:rng.Intn(len(b))]
			case 2:
				b[rng.Intn(len(b))] = byte(rng.Intn(256))
			case 3:
				at := rng.Intn(len(b))
				b = append(b[:at:at], append([]byte{byte(rng.Intn(256))}, b[at:]...)...)
			}
		}
		if m == "Remove" || m == "Commit" {
			// Keep mutants off what is there, should they ever name it.
			if bytes.Contains(b, []byte("bottom")) {
				continue
			}
		}
		err := t.invoke(m, b)
		if err := mustCode(fmt.Sprintf("%s with %q", m, b), err, codes.OK, codes.InvalidArgument, codes.NotFound,
			codes.AlreadyExists, codes.FailedPrecondition); err != nil {
			return err
		}
	}
	return t.removeOthers()
}

func badStrings(t *target) error {
	for what, s := range map[string]string{
		"a NUL in the middle":    "a\x00b",
		"a NUL at the end":       "ab\x00",
		"a lone continuation":    "a\x80",
		"a cut sequence":         "a\xe2\x82",
		"an overlong slash":      "a\xc0\xaf",
		"an overlong NUL":        "a\xc0\x80",
		"a surrogate":            "a\xed\xa0\x80",
		"above U+10FFFF":         "a\xf4\x90\x80\x80",
		"Latin-1":                "gr\xf6\xdfe",
		"five bytes of old UTF8": "a\xf8\x88\x80\x80\x80",
	} {
		for where, c := range map[string]struct {
			m string
			b pb
		}{
			"snapshotter of Stat":   {"Stat", pb{}.str(1, s).str(2, "bottom")},
			"key of Prepare":        {"Prepare", pb{}.str(2, s)},
			"parent of Prepare":     {"Prepare", pb{}.str(2, "new").str(3, s)},
			"label key of Prepare":  {"Prepare", pb{}.str(2, "new").label(4, s, "v")},
			"label value":           {"Prepare", pb{}.str(2, "new").label(4, "k", s)},
			"key of View":           {"View", pb{}.str(2, s)},
			"parent of View":        {"View", pb{}.str(2, "new").str(3, s)},
			"key of Mounts":         {"Mounts", pb{}.str(2, s)},
			"name of Commit":        {"Commit", pb{}.str(2, s).str(3, "bottom")},
			"key of Commit":         {"Commit", pb{}.str(2, "new").str(3, s)},
			"label of Commit":       {"Commit", pb{}.str(2, "new").str(3, "bottom").label(4, "k", s)},
			"parent of Commit":      {"Commit", pb{}.str(2, "new").str(3, "bottom").str(5, s)},
			"key of Remove":         {"Remove", pb{}.str(2, s)},
			"key of Stat":           {"Stat", pb{}.str(2, s)},
			"name of Update":        {"Update", pb{}.bytes(2, pb{}.str(1, s))},
			"label of Update":       {"Update", pb{}.bytes(2, pb{}.str(1, "bottom").label(6, "k", s))},
			"mask of Update":        {"Update", pb{}.bytes(2, pb{}.str(1, "bottom")).bytes(3, pb{}.str(1, "labels."+s))},
			"filter of List":        {"List", pb{}.str(2, "name=="+s)},
			"quoted filter of List": {"List", pb{}.str(2, "name==\""+s+"\"")},
			"key of Usage":          {"Usage", pb{}.str(2, s)},
		} {
			if err := mustCode(what+" in the "+where, t.invoke(c.m, c.b), codes.InvalidArgument); err != nil {
				return err
			}
		}
	}
	return nil
}

func emptyKeys(t *target) error {
	for where, c := range map[string]struct {
		m string
		b pb
	}{
		"Prepare":        {"Prepare", pb{}.str(3, "default/1/layer")},
		"View":           {"View", pb{}},
		"name of Commit": {"Commit", pb{}.str(3, "bottom")},
	} {
		if err := mustCode(where, t.invoke(c.m, c.b), codes.InvalidArgument); err != nil {
			return err
		}
	}
	for _, m := range []string{"Mounts", "Remove", "Stat", "Usage", "Commit", "Update"} {
		b := pb{}
		if m == "Commit" {
			b = b.str(2, "new")
		}
		if err := mustCode(m+" without a key", t.invoke(m, b), codes.InvalidArgument, codes.NotFound); err != nil {
			return err
		}
	}
	return nil
}

// tree lists what lies in a directory and in the one above.
func tree(dirs ...string) string {
	var out []string
	for _, d := range dirs {
		e, _ := os.ReadDir(d)
		for _, f := range e {
			out = append(out, filepath.Join(d, f.Name()))
		}
	}
	return strings.Join(out, "\n")
}

func pathKeys(t *target) error {
	ctx, cancel := background()
	defer cancel()
	above := []string{t.dir, t.d.Root}
	before := tree(above...)
	keys := []string{"..", ".", "/", "//", "../x", "../../x", "../../../../../../tmp/hostile-escape", "/tmp/hostile-escape",
		"a/../../b", "snapshots/1", "1", "1/etc", "work/1", "%2e%2e%2f", "-rf", "--help", "a\nb", "\t", " ", "\u202egnp", "*", "$(id)", "`id`",
		"'; DROP TABLE snapshots; --", "\"", "\\", ":", "con:", "a:b,c=d", "metadata.db", "\ufeff", "e\u0301", "\u00e9"}
	for _, k := range keys {
		r, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: k, Labels: map[string]string{k: k}})
		if err != nil {
			return fmt.Errorf("Prepare %q: %v", k, err)
		}
		rel, err := filepath.Rel(filepath.Join(t.d.Root, "snapshots"), r.Mounts[0].Source)
		if err != nil {
			return fmt.Errorf("Prepare %q: directory %s", k, r.Mounts[0].Source)
		}
		if _, err := strconv.ParseUint(rel, 10, 64); err != nil {
			return fmt.Errorf("Prepare %q: directory %s is no number", k, rel)
		}
		s, err := t.api.Stat(ctx, &api.StatSnapshotRequest{Key: k})
		if err != nil || s.Info.Name != k || s.Info.Labels[k] != k {
			return fmt.Errorf("Stat %q: %v, %v", k, s, err)
		}
	}
	seen, err := list(ctx, t.api)
	if err != nil {
		return err
	}
	if len(seen) != len(t.population)+len(keys) {
		return fmt.Errorf("%d snapshots, expected %d", len(seen), len(t.population)+len(keys))
	}
	for _, k := range keys {
		if _, err := t.api.Commit(ctx, &api.CommitSnapshotRequest{Name: "done" + k, Key: k}); err != nil {
			return fmt.Errorf("Commit %q: %v", k, err)
		}
		if _, err := t.api.Remove(ctx, &api.RemoveSnapshotRequest{Key: "done" + k}); err != nil {
			return fmt.Errorf("Remove %q: %v", k, err)
		}
	}
	if after := tree(above...); after != before {
		return fmt.Errorf("files appeared:\n%s\nbefore:\n%s", after, before)
	}
	if _, err := os.Lstat("/tmp/hostile-escape"); err == nil {
		return fmt.Errorf("/tmp/hostile-escape was made")
	}
	return nil
}

func longKeys(t *target) error {
	ctx, cancel := background()
	defer cancel()
	const cap = 4096
	for _, n := range []int{255, 256, 1000, cap} {
		k := strings.Repeat("k", n)
		if _, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: k}); err != nil {
			return fmt.Errorf("Prepare with a key of %d bytes: %v", n, err)
		}
		if _, err := t.api.Remove(ctx, &api.RemoveSnapshotRequest{Key: k}); err != nil {
			return fmt.Errorf("Remove with a key of %d bytes: %v", n, err)
		}
	}
	for _, n := range []int{cap + 1, 32768, 65536, 1 << 20, 15 << 20} {
		k := strings.Repeat("k", n)
		what := fmt.Sprintf("%d bytes as ", n)
		for where, c := range map[string]struct {
			m string
			b pb
		}{
			"key of Prepare": {"Prepare", pb{}.str(2, k)},
			"key of View":    {"View", pb{}.str(2, k)},
			"name of Commit": {"Commit", pb{}.str(2, k).str(3, "bottom")},
		} {
			if err := mustCode(what+where, t.invoke(c.m, c.b), codes.InvalidArgument); err != nil {
				return err
			}
		}
		for where, c := range map[string]struct {
			m string
			b pb
		}{
			"parent of Prepare": {"Prepare", pb{}.str(2, "new").str(3, k)},
			"key of Commit":     {"Commit", pb{}.str(2, "new").str(3, k)},
			"parent of Commit":  {"Commit", pb{}.str(2, "new").str(3, "bottom").str(5, k)},
			"key of Stat":       {"Stat", pb{}.str(2, k)},
			"key of Mounts":     {"Mounts", pb{}.str(2, k)},
			"key of Remove":     {"Remove", pb{}.str(2, k)},
			"key of Usage":      {"Usage", pb{}.str(2, k)},
			"name of Update":    {"Update", pb{}.bytes(2, pb{}.str(1, k))},
		} {
			// Nothing of that name can be there, so both answers are true.
			if err := mustCode(what+where, t.invoke(c.m, c.b), codes.InvalidArgument, codes.NotFound); err != nil {
				return err
			}
		}
		// A snapshotter field of any length is ignored.
		if err := mustCode(what+"snapshotter", t.invoke("Stat", pb{}.str(1, k).str(2, "bottom")), codes.OK,
			codes.InvalidArgument); err != nil {
			return err
		}
	}
	return nil
}

func giantLabels(t *target) error {
	ctx, cancel := background()
	defer cancel()
	fits := map[string]string{"key": strings.Repeat("v", 4093)}
	for what, l := range map[string]map[string]string{
		"4097 bytes":       {"key": strings.Repeat("v", 4094)},
		"a key of 4097":    {strings.Repeat("k", 4097): "v"},
		"1 MiB":            {"key": strings.Repeat("v", 1<<20)},
		"15 MiB":           {"key": strings.Repeat("v", 15<<20)},
		"one good, one no": {"a": "b", "key": strings.Repeat("v", 5000)},
	} {
		_, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: "new", Labels: l})
		if err := mustCode("Prepare with a label of "+what, err, codes.InvalidArgument); err != nil {
			return err
		}
		_, err = t.api.View(ctx, &api.ViewSnapshotRequest{Key: "new", Parent: "default/0/layer", Labels: l})
		if err := mustCode("View with a label of "+what, err, codes.InvalidArgument); err != nil {
			return err
		}
		_, err = t.api.Commit(ctx, &api.CommitSnapshotRequest{Name: "new", Key: "bottom", Labels: l})
		if err := mustCode("Commit with a label of "+what, err, codes.InvalidArgument); err != nil {
			return err
		}
		for _, mask := range [][]string{nil, {"labels"}, {"labels.key"}, {"labels." + strings.Repeat("k", 4097)}} {
			if mask != nil && mask[0] != "labels" && l[mask[0][7:]] == "" {
				continue // a label that is not set is not too large
			}
			_, err = t.api.Update(ctx, &api.UpdateSnapshotRequest{Info: api.Info{Name: "bottom", Labels: l},
				UpdateMask: &ptypes.FieldMask{Paths: mask}})
			if err := mustCode("Update with a label of "+what, err, codes.InvalidArgument); err != nil {
				return err
			}
		}
	}
	if _, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: "new", Labels: fits}); err != nil {
		return fmt.Errorf("Prepare with a label of 4096 bytes: %v", err)
	}
	if r, err := t.api.Stat(ctx, &api.StatSnapshotRequest{Key: "new"}); err != nil || !reflect.DeepEqual(r.Info.Labels, fits) {
		return fmt.Errorf("Stat with a label of 4096 bytes: %v", err)
	}
	return t.removeOthers()
}

func manyLabels(t *target) error {
	ctx, cancel := background()
	defer cancel()
	for _, n := range []int{1000, 10000, 200000} {
		l := map[string]string{}
		for i := 0; i < n; i++ {
			l[fmt.Sprintf("label.%d", i)] = strconv.Itoa(i)
		}
		what := fmt.Sprintf("with %d labels", n)
		kept := func(key string) error {
			r, err := t.api.Stat(ctx, &api.StatSnapshotRequest{Key: key})
			if err != nil || !reflect.DeepEqual(r.Info.Labels, l) {
				return fmt.Errorf("accepted %s, but Stat does not give them back: %v", what, err)
			}
			return nil
		}
		allowed := []codes.Code{codes.OK, codes.InvalidArgument, codes.ResourceExhausted}
		if n <= 1000 {
			allowed = allowed[:1]
		}
		_, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: "many", Labels: l})
		if err := mustCode("Prepare "+what, err, allowed...); err != nil {
			return err
		}
		if err == nil {
			if err := kept("many"); err != nil {
				return err
			}
		} else if _, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: "many"}); err != nil {
			return fmt.Errorf("the refused Prepare %s left something: %v", what, err)
		}
		_, err = t.api.Update(ctx, &api.UpdateSnapshotRequest{Info: api.Info{Name: "many", Labels: l}})
		if err := mustCode("Update "+what, err, allowed...); err != nil {
			return err
		}
		if err == nil {
			if err := kept("many"); err != nil {
				return err
			}
		}
		_, err = t.api.Commit(ctx, &api.CommitSnapshotRequest{Name: "many done", Key: "many", Labels: l})
		if err := mustCode("Commit "+what, err, allowed...); err != nil {
			return err
		}
		if err == nil {
			if err := kept("many done"); err != nil {
				return err
			}
		}
		if err := t.removeOthers(); err != nil {
			return err
		}
	}
	// As many mask paths, each naming one label.
	var paths []string
	for i := 0; i < 10000; i++ {
		paths = append(paths, fmt.Sprintf("labels.no%d", i))
	}
	_, err := t.api.Update(ctx, &api.UpdateSnapshotRequest{Info: api.Info{Name: "absent"}, UpdateMask: &ptypes.FieldMask{Paths: paths}})
	return mustCode("Update with 10000 mask paths", err, codes.NotFound, codes.InvalidArgument, codes.ResourceExhausted)
}

func duplicates(t *target) error {
	ctx, cancel := background()
	defer cancel()
	b := pb{}.str(2, "first").label(4, "k", "1").label(4, "other", "x").str(2, "twice").label(4, "k", "2").label(4, "k", "3").
		label(4, "gone", "y").label(4, "gone", "")
	if err := t.invoke("Prepare", b); err != nil {
		return fmt.Errorf("Prepare: %v", err)
	}
	want := map[string]string{"k": "3", "other": "x"}
	r, err := t.api.Stat(ctx, &api.StatSnapshotRequest{Key: "twice"})
	if err != nil {
		return fmt.Errorf("the last of two keys did not win: %v", err)
	}
	if !reflect.DeepEqual(r.Info.Labels, want) {
		return fmt.Errorf("Prepare: labels %v, expected %v", r.Info.Labels, want)
	}
	if err := t.invoke("Update", pb{}.bytes(2, pb{}.str(1, "twice").label(6, "k", "4").label(6, "k", "5"))); err != nil {
		return fmt.Errorf("Update: %v", err)
	}
	want = map[string]string{"k": "5"}
	r, err = t.api.Stat(ctx, &api.StatSnapshotRequest{Key: "twice"})
	if err != nil || !reflect.DeepEqual(r.Info.Labels, want) {
		return fmt.Errorf("Update: labels %v, expected %v (%v)", r, want, err)
	}
	if err := t.invoke("Commit", pb{}.str(2, "twice done").str(3, "twice").label(4, "k", "6").label(4, "k", "7")); err != nil {
		return fmt.Errorf("Commit: %v", err)
	}
	want = map[string]string{"k": "7"}
	r, err = t.api.Stat(ctx, &api.StatSnapshotRequest{Key: "twice done"})
	if err != nil || !reflect.DeepEqual(r.Info.Labels, want) {
		return fmt.Errorf("Commit: labels %v, expected %v (%v)", r, want, err)
	}
	return t.removeOthers()
}

func unknownFields(t *target) error {
	extra := pb{}.str(99, "x").varint(100<<3 | 0).varint(7)
	extra = append(append(extra.varint(101<<3|1), 1, 2, 3, 4, 5, 6, 7, 8).varint(102<<3|5), 1, 2, 3, 4)
	for _, m := range []string{"Stat", "Mounts", "Usage"} {
		if err := t.invoke(m, append(pb{}.str(2, "bottom"), extra...)); err != nil {
			return fmt.Errorf("%s with unknown fields: %v", m, err)
		}
	}
	if err := t.invoke("Prepare", append(extra, pb{}.str(2, "extra")...)); err != nil {
		return fmt.Errorf("Prepare with unknown fields: %v", err)
	}
	return t.removeOthers()
}

func badMasks(t *target) error {
	ctx, cancel := background()
	defer cancel()
	for _, paths := range [][]string{{"name"}, {"kind"}, {"parent"}, {"created_at"}, {"labels.a", "name"}, {""}, {"."},
		{"Labels"}, {"labels.a", ""}, {"label.a"}, {"labelsx"}, {strings.Repeat("x", 1<<20)}} {
		_, err := t.api.Update(ctx, &api.UpdateSnapshotRequest{Info: api.Info{Name: "bottom", Labels: map[string]string{"a": "b"}},
			UpdateMask: &ptypes.FieldMask{Paths: paths}})
		if len(paths[0]) > 50 {
			paths[0] = paths[0][:50]
		}
		if err := mustCode(fmt.Sprintf("Update with mask %q", paths), err, codes.InvalidArgument); err != nil {
			return err
		}
	}
	return nil
}

func strangeTimes(t *target) error {
	ctx, cancel := background()
	defer cancel()
	if _, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: "times"}); err != nil {
		return err
	}
	before, err := t.api.Stat(ctx, &api.StatSnapshotRequest{Key: "times"})
	if err != nil {
		return err
	}
	for _, ts := range []pb{
		append(pb{}.varint(1<<3), pb{}.varint(uint64(0xfffffff1886e0900))...), // year 1, as containerd sends it
		append(pb{}.varint(1<<3), pb{}.varint(1<<63)...),
		append(pb{}.varint(1<<3), pb{}.varint(1<<63-1)...),
		append(pb{}.varint(2<<3), pb{}.varint(0xffffffffffffffff)...),
		append(pb{}.varint(2<<3), pb{}.varint(1<<31-1)...),
	} {
		info := pb{}.str(1, "times").str(2, "other parent").bytes(4, ts).bytes(5, ts)
		info = append(info.varint(3<<3), 77)
		if err := t.invoke("Update", pb{}.bytes(2, info)); err != nil {
			return fmt.Errorf("Update with timestamp %q: %v", []byte(ts), err)
		}
		after, err := t.api.Stat(ctx, &api.StatSnapshotRequest{Key: "times"})
		if err != nil {
			return err
		}
		if !after.Info.CreatedAt.Equal(before.Info.CreatedAt) || after.Info.Kind != before.Info.Kind || after.Info.Parent != "" {
			return fmt.Errorf("Update changed what it may not: %v, before %v", after, before)
		}
		if now := time.Now(); after.Info.UpdatedAt.After(now.Add(time.Minute)) || after.Info.UpdatedAt.Before(now.Add(-10*time.Minute)) {
			return fmt.Errorf("updated_at is %v", after.Info.UpdatedAt)
		}
	}
	return t.removeOthers()
}

func commitParents(t *target) error {
	for what, c := range map[string]struct {
		key, parent string
		want        codes.Code
	}{
		"a parent that is not its own":   {"active-2", "default/1/layer", codes.InvalidArgument},
		"an unknown parent":              {"bottom", "no such", codes.NotFound},
		"an active parent":               {"bottom", "active-1", codes.FailedPrecondition},
		"a view as parent":               {"bottom", "view \"1\"", codes.FailedPrecondition},
		"itself as parent":               {"bottom", "bottom", codes.FailedPrecondition},
		"the name it will have":          {"bottom", "new", codes.NotFound},
		"an unknown parent, and its own": {"active-2", "no such", codes.InvalidArgument},
	} {
		err := t.invoke("Commit", pb{}.str(2, "new").str(3, c.key).str(5, c.parent))
		allowed := []codes.Code{c.want}
		if c.parent == "no such" {
			allowed = append(allowed, codes.NotFound, codes.InvalidArgument)
		}
		if err := mustCode("Commit with "+what, err, allowed...); err != nil {
			return err
		}
	}
	return nil
}

func messageSize(t *target) error {
	pad := func(total int) pb {
		b := pb{}.str(2, "bottom")
		// tag (2 bytes) and length (4 bytes, for this size) of the padding
		return b.bytes(99, make([]byte, total-len(b)-6))
	}
	for _, n := range []int{15 << 20, 16 << 20} {
		b := pad(n)
		if len(b) != n {
			return fmt.Errorf("the test is wrong: %d bytes, not %d", len(b), n)
		}
		if err := mustCode(fmt.Sprintf("Stat in a message of %d bytes", n), t.invoke("Stat", b), codes.OK); err != nil {
			return err
		}
	}
	for _, n := range []int{16<<20 + 1, 17 << 20, 48 << 20} {
		for _, m := range []string{"Stat", "Prepare", "List"} {
			if err := mustCode(fmt.Sprintf("%s in a message of %d bytes", m, n), t.invoke(m, pad(n)), codes.ResourceExhausted); err != nil {
				return err
			}
		}
	}
	return nil
}

// gzipBomb sends 1 GiB of zeros in 1 MiB. The limit of a message holds for what it unpacks to.
func gzipBomb(t *target) error {
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, 9)
	w.Write(pb{}.str(2, "bottom").varint(99<<3 | 2).varint(1 << 30))
	zeros := make([]byte, 1<<20)
	for i := 0; i < 1024; i++ {
		w.Write(zeros)
	}
	w.Close()
	before := t.peak()
	r, err := dialRaw(t.d.Addr, false)
	if err != nil {
		return err
	}
	defer r.Close()
	id, err := r.open(false, grpcHeaders(prefix+"Stat", field{"grpc-encoding", "gzip"}))
	if err != nil {
		return err
	}
	// Within the connection's first window a few bytes are left over for safety.
	body := message(1, z.Len(), z.Bytes())
	if err := r.send(id, true, body); err != nil {
		return err
	}
	res, err := r.result(id)
	if err != nil {
		return err
	}
	if res.status == int(codes.OK) || (res.status >= 0 && res.status != int(codes.ResourceExhausted) &&
		res.status != int(codes.Unimplemented) && res.status != int(codes.Internal) && res.status != int(codes.InvalidArgument)) {
		return fmt.Errorf("answered %v", res)
	}
	if grew := t.peak() - before; grew > 200<<10 {
		return fmt.Errorf("resident memory grew by %d KiB at its peak (answered %v)", grew, res)
	}
	return nil
}
