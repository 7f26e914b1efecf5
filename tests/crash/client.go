// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"./kit"
	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	ptypes "github.com/gogo/protobuf/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// client sends one call after the other. It alone changes the keys it owns, so the model of them is
// exact at every moment; it may use committed snapshots of others as parents.
type client struct {
	id   int
	w    *world
	rng  *rand.Rand
	api  api.SnapshotsClient
	gone bool // the daemon no longer answers
}

func (c *client) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), kit.Hung)
}

// code classifies an answer; lost is true if there was none.
func (c *client) code(err error) (code codes.Code, lost bool) {
	code = status.Code(err)
	c.w.mu.Lock()
	stopping := c.w.stopping
	c.w.mu.Unlock()
	// A daemon that is told to stop cancels what it has not begun.
	if code == codes.Unavailable || (code == codes.Canceled && stopping) {
		c.gone = true
		return code, true
	}
	return code, false
}

func (c *client) labels() map[string]string {
	l := map[string]string{}
	for n := c.rng.Intn(4); n > 0; n-- {
		switch c.rng.Intn(6) {
		case 0:
			l["containerd.io/snapshot/crash.n"] = fmt.Sprint(c.rng.Intn(1000))
		case 1:
			l["a.b.c"] = fmt.Sprint(c.rng.Intn(3))
		case 2:
			l["größe \"x\""] = "schön, \\ 世界"
		case 3:
			l["big"] = strings.Repeat("v", c.rng.Intn(4093))
		case 4:
			l["empty"] = ""
		case 5:
			l[fmt.Sprintf("k%d", c.rng.Intn(5))] = fmt.Sprint(c.rng.Int63())
		}
	}
	return l
}

func (c *client) newKey() string {
	c.w.mu.Lock()
	c.w.next++
	n := c.w.next
	c.w.mu.Unlock()
	switch c.rng.Intn(5) {
	case 0:
		return fmt.Sprintf("c%d/%d/extract-1-x sha256:%064x", c.id, n, n)
	case 1:
		return fmt.Sprintf("c%d/%d ../../'\"%%\n_é", c.id, n)
	}
	return fmt.Sprintf("c%d/%d", c.id, n)
}

// own lists the client's keys that pass the test, in a fixed order.
func (c *client) own(ok func(string, *state) bool) []string {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	var out []string
	for k, s := range c.w.snaps {
		if s.owner == c.id && (ok == nil || ok(k, s)) {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}

func (c *client) pick(keys []string) (string, bool) {
	if len(keys) == 0 {
		return "", false
	}
	return keys[c.rng.Intn(len(keys))], true
}

func (c *client) get(key string) *state {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.w.snaps[key]
}

func isKind(kinds ...api.Kind) func(string, *state) bool {
	return func(_ string, s *state) bool {
		for _, k := range kinds {
			if s.kind == k {
				return true
			}
		}
		return false
	}
}

// parent chooses "" or a committed snapshot; shared says that it belongs to another client.
func (c *client) parent() (name string, shared bool) {
	const maxDepth = 9
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.rng.Intn(4) == 0 {
		return "", false
	}
	others := c.rng.Intn(3) == 0
	var names []string
	for k, s := range c.w.snaps {
		if s.kind == api.KindCommitted && (s.owner == c.id) != others && c.w.depth(k) < maxDepth {
			names = append(names, k)
		}
	}
	if len(names) == 0 {
		return "", false
	}
	sort.Strings(names)
	name = names[c.rng.Intn(len(names))]
	if c.w.snaps[name].owner != c.id {
		c.w.borrowed[name] = true
		return name, true
	}
	return name, false
}

// unexpected reports an answer that the contract does not allow.
func (c *client) unexpected(what string, err error) {
	c.w.end(c.id, nil)
	c.w.failf("client %d: %s: unexpected answer: %v", c.id, what, err)
	c.gone = true
}

// expect sends a call that must be refused with a code and must change nothing.
func (c *client) expect(what string, want codes.Code, call func(context.Context) error) {
	c.w.begin(c.id, what, outcome{})
	ctx, cancel := c.ctx()
	defer cancel()
	err := call(ctx)
	code, lost := c.code(err)
	if lost {
		return
	}
	if code != want {
		c.unexpected(what+" (expected "+want.String()+")", err)
		return
	}
	c.w.end(c.id, nil)
}

// parentWent says whether a call was refused because the client that owns the parent has removed it since: it is
// not found then, or not committed, as remove() may use the name again at once.
func (c *client) parentWent(code codes.Code, parent string) bool {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return (code == codes.NotFound || code == codes.InvalidArgument) && c.w.doomed[parent]
}

// create is Prepare or View, of a fresh key.
func (c *client) create(view bool) {
	key := c.newKey()
	parent, shared := c.parent()
	c.createOn(view, key, parent, shared, c.labels())
}

func (c *client) createOn(view bool, key, parent string, shared bool, labels map[string]string) {
	what, kind := "Prepare", api.KindActive
	if view {
		what, kind = "View", api.KindView
	}
	what = fmt.Sprintf("%s key=%q parent=%q labels=%s", what, key, parent, kit.ShowLabels(labels))
	win := kit.FromNow()
	s := &state{owner: c.id, kind: kind, parent: parent, labels: kit.NoEmpty(labels),
		created: win, updated: win, files: map[string]string{}}
	c.w.mu.Lock()
	if p := c.w.snaps[parent]; p != nil {
		s.uid = p.uid
	}
	c.w.mu.Unlock()
	c.w.begin(c.id, what, outcome{key: nil}, outcome{key: s})
	ctx, cancel := c.ctx()
	defer cancel()
	var mounts []*types.Mount
	var err error
	if view {
		var r *api.ViewSnapshotResponse
		r, err = c.api.View(ctx, &api.ViewSnapshotRequest{Snapshotter: "x", Key: key, Parent: parent, Labels: labels})
		if err == nil {
			mounts = r.Mounts
		}
	} else {
		var r *api.PrepareSnapshotResponse
		r, err = c.api.Prepare(ctx, &api.PrepareSnapshotRequest{Snapshotter: "x", Key: key, Parent: parent, Labels: labels})
		if err == nil {
			mounts = r.Mounts
		}
	}
	code, lost := c.code(err)
	if lost {
		return
	}
	if shared && c.parentWent(code, parent) {
		c.w.end(c.id, nil)
		return
	}
	if err != nil {
		c.unexpected(what, err)
		return
	}
	p, perr := placeOf(mounts)
	s.created.Hi = time.Now()
	s.updated.Hi = s.created.Hi
	s.mounts = flatMounts(mounts)
	s.dir = p.upper
	c.w.end(c.id, outcome{key: s})
	if perr != nil {
		c.w.failf("%s: %v", what, perr)
		return
	}
	c.w.mu.Lock()
	if bad := c.w.checkPlace(s, p); bad != "" {
		c.w.failLocked("%s: mounts %v: %s", what, s.mounts, bad)
	}
	c.w.mu.Unlock()
	dirs := append([]string{}, p.lower...)
	if !view {
		dirs = append(dirs, p.upper)
		if p.work != "" {
			dirs = append(dirs, p.work)
		}
	}
	if !shared {
		for _, d := range dirs {
			if st, err := os.Stat(d); err != nil || !st.IsDir() {
				c.w.failf("%s: answered, but no directory %s: %v", what, d, err)
			}
		}
	}
	if !view {
		if uid := ownerOf(p.upper); uid != s.uid {
			c.w.failf("%s: %s belongs to user %d, its parent's to %d", what, p.upper, uid, s.uid)
		}
		if e, err := os.ReadDir(p.upper); err == nil && len(e) != 0 {
			c.w.failf("%s: a new snapshot's directory %s holds %v", what, p.upper, e)
		}
	}
}

// race sends several Prepares of one key at a time: one may win.
func (c *client) race() {
	key := c.newKey()
	const n = 3
	win := kit.FromNow()
	outs := []outcome{{key: nil}}
	for i := 0; i < n; i++ {
		outs = append(outs, outcome{key: &state{owner: c.id, kind: api.KindActive,
			labels: map[string]string{"race": fmt.Sprint(i)}, created: win, updated: win,
			files: map[string]string{}}})
	}
	what := fmt.Sprintf("Prepare(race) key=%q", key)
	c.w.begin(c.id, what, outs...)
	ctx, cancel := c.ctx()
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, n)
	resp := make([]*api.PrepareSnapshotResponse, n)
	for i := 0; i < n; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			resp[i], errs[i] = c.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: key,
				Labels: map[string]string{"race": fmt.Sprint(i)}})
		}(i)
	}
	wg.Wait()
	winner, lostAny := -1, false
	for i, err := range errs {
		code, lost := c.code(err)
		switch {
		case lost:
			lostAny = true
		case err == nil && winner >= 0:
			c.unexpected(what, fmt.Errorf("two Prepares of one key succeeded"))
			return
		case err == nil:
			winner = i
		case code != codes.AlreadyExists:
			c.unexpected(what, err)
			return
		}
	}
	if winner < 0 {
		if !lostAny {
			c.unexpected(what, fmt.Errorf("every Prepare of a fresh key was refused: %v", errs))
		}
		return
	}
	o := outs[winner+1]
	s := o[key]
	s.created.Hi = time.Now()
	s.updated.Hi = s.created.Hi
	s.mounts = flatMounts(resp[winner].Mounts)
	if p, err := placeOf(resp[winner].Mounts); err == nil {
		s.dir = p.upper
	}
	c.w.end(c.id, o)
}

// commitRequest builds the request; withParent adds field 5, which containerd 2.2 brought.
func commitRequest(name, key string, labels map[string]string, withParent bool, parent string) *api.CommitSnapshotRequest {
	r := &api.CommitSnapshotRequest{Snapshotter: "x", Name: name, Key: key, Labels: labels}
	if withParent {
		var n [binary.MaxVarintLen64]byte
		l := binary.PutUvarint(n[:], uint64(len(parent)))
		r.XXX_unrecognized = append(append([]byte{5<<3 | 2}, n[:l]...), parent...)
	}
	return r
}

func (c *client) commit() {
	key, ok := c.pick(c.own(isKind(api.KindActive)))
	if !ok {
		return
	}
	old := c.get(key)
	name := c.newKey()
	labels := c.labels()
	parent, withParent, shared := old.parent, c.rng.Intn(5) == 0, false
	if withParent && parent == "" && c.rng.Intn(2) == 0 {
		parent, shared = c.parent()
	}
	what := fmt.Sprintf("Commit name=%q key=%q labels=%s", name, key, kit.ShowLabels(labels))
	if withParent {
		what += fmt.Sprintf(" parent=%q", parent)
	}
	s := old.clone()
	s.kind = api.KindCommitted
	s.labels = kit.NoEmpty(labels)
	s.parent = parent
	s.mounts = nil
	s.usage = nil
	s.created = kit.FromNow()
	s.updated = s.created
	c.w.begin(c.id, what, outcome{key: old, name: nil}, outcome{key: nil, name: s})
	ctx, cancel := c.ctx()
	defer cancel()
	_, err := c.api.Commit(ctx, commitRequest(name, key, labels, withParent, parent))
	code, lost := c.code(err)
	if lost {
		return
	}
	if shared && c.parentWent(code, parent) {
		c.w.end(c.id, nil)
		return
	}
	if err != nil {
		c.unexpected(what, err)
		return
	}
	s.created.Hi = time.Now()
	s.updated.Hi = s.created.Hi
	c.w.end(c.id, outcome{key: nil, name: s})
}

func (c *client) update() {
	key, ok := c.pick(c.own(nil))
	if !ok {
		return
	}
	old := c.get(key)
	s := old.clone()
	labels := c.labels()
	var mask []string
	switch c.rng.Intn(4) {
	case 0:
		s.labels = kit.NoEmpty(labels)
	case 1:
		mask = []string{"labels"}
		s.labels = kit.NoEmpty(labels)
	default:
		names := []string{"a.b.c", "big", "größe \"x\"", "k1"}
		for _, n := range names[:1+c.rng.Intn(len(names))] {
			mask = append(mask, "labels."+n)
			if labels[n] == "" {
				delete(s.labels, n)
			} else {
				s.labels[n] = labels[n]
			}
		}
	}
	what := fmt.Sprintf("Update key=%q mask=%q labels=%s", key, mask, kit.ShowLabels(labels))
	s.updated = kit.FromNow()
	c.w.begin(c.id, what, outcome{key: old}, outcome{key: s})
	ctx, cancel := c.ctx()
	defer cancel()
	r, err := c.api.Update(ctx, &api.UpdateSnapshotRequest{
		Info:       api.Info{Name: key, Labels: labels, Kind: api.KindCommitted},
		UpdateMask: &ptypes.FieldMask{Paths: mask}})
	if _, lost := c.code(err); lost {
		return
	}
	if err != nil {
		c.unexpected(what, err)
		return
	}
	s.updated.Hi = time.Now()
	c.w.end(c.id, outcome{key: s})
	c.look(what, key, &r.Info)
}

// look compares an answered Info with the model and keeps its times.
func (c *client) look(what, key string, i *api.Info) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	s := c.w.snaps[key]
	if i.Name != key {
		c.w.failLocked("%s: the answer names %q", what, i.Name)
	} else if d := s.differs(i); d != "" {
		c.w.failLocked("%s: %s: answer %s, acknowledged %v", what, d, showInfo(i), s)
	} else {
		s.learn(i)
	}
}

func (c *client) remove() {
	key, ok := c.pick(c.own(nil))
	if !ok {
		return
	}
	old := c.get(key)
	c.w.mu.Lock()
	child := c.w.hasChild(key)
	c.w.doomed[key] = true
	c.w.mu.Unlock()
	what := fmt.Sprintf("Remove key=%q", key)
	c.w.begin(c.id, what, outcome{key: old}, outcome{key: nil})
	ctx, cancel := c.ctx()
	defer cancel()
	_, err := c.api.Remove(ctx, &api.RemoveSnapshotRequest{Key: key})
	code, lost := c.code(err)
	if lost {
		return
	}
	if code == codes.FailedPrecondition && old.kind == api.KindCommitted {
		c.w.mu.Lock()
		may := child || c.w.borrowed[key]
		c.w.mu.Unlock()
		if may {
			c.w.end(c.id, nil)
			return
		}
	}
	if err != nil {
		c.unexpected(what, err)
		return
	}
	c.w.end(c.id, outcome{key: nil})
	if c.rng.Intn(3) == 0 {
		c.expect(fmt.Sprintf("Stat of removed %q", key), codes.NotFound, func(ctx context.Context) error {
			_, err := c.api.Stat(ctx, &api.StatSnapshotRequest{Key: key})
			return err
		})
		if !c.gone && c.rng.Intn(2) == 0 {
			c.createOn(false, key, "", false, c.labels())
		}
	}
}

func (c *client) stat() {
	key, ok := c.pick(c.own(nil))
	if !ok {
		return
	}
	what := fmt.Sprintf("Stat key=%q", key)
	c.w.begin(c.id, what, outcome{})
	ctx, cancel := c.ctx()
	defer cancel()
	r, err := c.api.Stat(ctx, &api.StatSnapshotRequest{Key: key})
	if _, lost := c.code(err); lost {
		return
	}
	if err != nil {
		c.unexpected(what, err)
		return
	}
	c.w.end(c.id, outcome{})
	c.look(what, key, &r.Info)
}

func (c *client) mounts() {
	key, ok := c.pick(c.own(isKind(api.KindActive, api.KindView)))
	if !ok {
		return
	}
	what := fmt.Sprintf("Mounts key=%q", key)
	c.w.begin(c.id, what, outcome{})
	ctx, cancel := c.ctx()
	defer cancel()
	r, err := c.api.Mounts(ctx, &api.MountsRequest{Key: key})
	if _, lost := c.code(err); lost {
		return
	}
	if err != nil {
		c.unexpected(what, err)
		return
	}
	c.w.end(c.id, outcome{})
	s := c.get(key)
	got := flatMounts(r.Mounts)
	if s.mounts != nil && strings.Join(got, "\n") != strings.Join(s.mounts, "\n") {
		c.w.failf("%s: answer %v, before %v", what, got, s.mounts)
	}
}

func (c *client) usage() {
	key, ok := c.pick(c.own(nil))
	if !ok {
		return
	}
	what := fmt.Sprintf("Usage key=%q", key)
	c.w.begin(c.id, what, outcome{})
	ctx, cancel := c.ctx()
	defer cancel()
	r, err := c.api.Usage(ctx, &api.UsageRequest{Key: key})
	if _, lost := c.code(err); lost {
		return
	}
	if err != nil {
		c.unexpected(what, err)
		return
	}
	c.w.end(c.id, outcome{})
	s := c.get(key)
	if s.kind == api.KindCommitted {
		if s.usage == nil {
			s.usage = r
		} else if !sameUsage(s.usage, r) {
			c.w.failf("%s: committed usage was %v, is %v", what, s.usage, r)
		}
	}
	if s.kind == api.KindActive && s.dir != "" {
		if size, inodes := diskUsage(s.dir); size != r.Size_ || inodes != r.Inodes {
			c.w.failf("%s: answer %d bytes %d inodes, on disk %d and %d", what, r.Size_, r.Inodes, size, inodes)
		}
	}
}

func (c *client) list() {
	what := "List"
	c.w.begin(c.id, what, outcome{})
	ctx, cancel := c.ctx()
	defer cancel()
	seen, err := listAll(ctx, c.api)
	if _, lost := c.code(err); lost {
		return
	}
	if err != nil {
		c.unexpected(what, err)
		return
	}
	c.w.end(c.id, outcome{})
	prefix := fmt.Sprintf("c%d/", c.id)
	for k, i := range seen {
		if strings.HasPrefix(k, prefix) {
			if s := c.get(k); s == nil {
				c.w.failf("List: %q is listed, but not there: %s", k, showInfo(i))
			} else {
				c.look("List", k, i)
			}
		}
	}
	for _, k := range c.own(nil) {
		if seen[k] == nil {
			c.w.failf("List: %q is missing", k)
		}
	}
}

func listAll(ctx context.Context, a api.SnapshotsClient, filters ...string) (map[string]*api.Info, error) {
	seen := map[string]*api.Info{}
	st, err := a.List(ctx, &api.ListSnapshotsRequest{Filters: filters})
	if err != nil {
		return nil, err
	}
	for {
		r, err := st.Recv()
		if err == io.EOF {
			return seen, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range r.Info {
			if seen[r.Info[i].Name] != nil {
				return nil, fmt.Errorf("%q is listed twice", r.Info[i].Name)
			}
			seen[r.Info[i].Name] = &r.Info[i]
		}
	}
}

func (c *client) cleanup() {
	c.w.begin(c.id, "Cleanup", outcome{})
	ctx, cancel := c.ctx()
	defer cancel()
	_, err := c.api.Cleanup(ctx, &api.CleanupRequest{})
	if _, lost := c.code(err); lost {
		return
	}
	if err != nil {
		c.unexpected("Cleanup", err)
		return
	}
	c.w.end(c.id, outcome{})
}

// write puts a file into an active snapshot, durably, as a container would through the mount.
func (c *client) write() {
	key, ok := c.pick(c.own(func(_ string, s *state) bool { return s.kind == api.KindActive && s.dir != "" }))
	if !ok {
		return
	}
	s := c.get(key)
	if c.rng.Intn(6) == 0 {
		// Snapshots upon this one must then belong to the same user.
		s.uid = 1000 + c.rng.Intn(5)
		if err := os.Chown(s.dir, s.uid, s.uid); err != nil {
			c.w.failf("chown %s of %q: %v", s.dir, key, err)
		}
		return
	}
	name := fmt.Sprintf("f%d", c.rng.Intn(4))
	data := fmt.Sprintf("%s %d\n", key, c.rng.Int63())
	data += strings.Repeat("x", c.rng.Intn(9000))
	if err := writeDurably(s.dir, name, data); err != nil {
		c.w.failf("write %s/%s of %q: %v", s.dir, name, key, err)
		return
	}
	s.files[name] = data
}

func ownerOf(dir string) int {
	st, err := os.Stat(dir)
	if err != nil {
		return -1
	}
	return int(st.Sys().(*syscall.Stat_t).Uid)
}

func writeDurably(dir, name, data string) error {
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// refusals sends one call that must be refused.
func (c *client) refusals() {
	active, okA := c.pick(c.own(isKind(api.KindActive)))
	view, okV := c.pick(c.own(isKind(api.KindView)))
	done, okC := c.pick(c.own(isKind(api.KindCommitted)))
	any, okN := c.pick(c.own(nil))
	fresh := c.newKey()
	a := c.api
	prepare := func(key, parent string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := a.Prepare(ctx, &api.PrepareSnapshotRequest{Key: key, Parent: parent})
			return err
		}
	}
	commit := func(name, key string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := a.Commit(ctx, commitRequest(name, key, nil, false, ""))
			return err
		}
	}
	switch c.rng.Intn(9) {
	case 0:
		if okN {
			c.expect(fmt.Sprintf("Prepare of the existing %q", any), codes.AlreadyExists, prepare(any, ""))
		}
	case 1:
		c.expect("Prepare on an unknown parent", codes.NotFound, prepare(fresh, "none/such"))
	case 2:
		if okA {
			c.expect(fmt.Sprintf("Prepare on the active %q", active), codes.InvalidArgument, prepare(fresh, active))
		}
	case 3:
		if okA && okC {
			c.expect(fmt.Sprintf("Commit of %q as the existing %q", active, done), codes.AlreadyExists, commit(done, active))
		}
	case 4:
		if okV {
			c.expect(fmt.Sprintf("Commit of the view %q", view), codes.FailedPrecondition, commit(fresh, view))
		}
	case 5:
		if okC {
			c.expect(fmt.Sprintf("Commit of the committed %q", done), codes.FailedPrecondition, commit(fresh, done))
		}
	case 6:
		if okC {
			c.expect(fmt.Sprintf("Mounts of the committed %q", done), codes.FailedPrecondition, func(ctx context.Context) error {
				_, err := a.Mounts(ctx, &api.MountsRequest{Key: done})
				return err
			})
		}
	case 7:
		c.expect("Remove of an unknown key", codes.NotFound, func(ctx context.Context) error {
			_, err := a.Remove(ctx, &api.RemoveSnapshotRequest{Key: fresh})
			return err
		})
	case 8:
		if okN {
			c.expect("Update with a mask of an immutable field", codes.InvalidArgument, func(ctx context.Context) error {
				_, err := a.Update(ctx, &api.UpdateSnapshotRequest{Info: api.Info{Name: any,
					Labels: map[string]string{"no": "no"}}, UpdateMask: &ptypes.FieldMask{Paths: []string{"labels.no", "kind"}}})
				return err
			})
		}
	}
}

// step sends one call, chosen at random, in a mix that keeps the population about level.
func (c *client) step() {
	n := len(c.own(nil))
	r := c.rng.Intn(100)
	if n > 25 && r < 35 {
		c.remove()
		return
	}
	switch {
	case r < 26:
		c.create(false)
	case r < 32:
		c.create(true)
	case r < 34:
		c.race()
	case r < 48:
		c.commit()
	case r < 57:
		c.update()
	case r < 70:
		c.remove()
	case r < 74:
		c.stat()
	case r < 78:
		c.mounts()
	case r < 80:
		c.usage()
	case r < 81:
		c.list()
	case r < 83:
		c.cleanup()
	case r < 94:
		c.write()
	default:
		c.refusals()
	}
}

// load runs clients until the daemon is gone, or stop is closed, or each has made its steps (0: no limit).
func load(w *world, conn *grpc.ClientConn, clients, steps int, seed int64, stop <-chan struct{}) {
	var wg sync.WaitGroup
	for i := 0; i < clients; i++ {
		c := &client{id: i, w: w, rng: rand.New(rand.NewSource(seed*1000 + int64(i))), api: api.NewSnapshotsClient(conn)}
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; !c.gone && (steps == 0 || n < steps); n++ {
				select {
				case <-stop:
					return
				default:
				}
				c.step()
			}
		}()
	}
	wg.Wait()
}
