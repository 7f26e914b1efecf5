// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"strings"
	"sync"
	"time"

	"../kit"
	api "github.com/containerd/containerd/api/services/content/v1"
	ptypes "github.com/gogo/protobuf/types"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// client sends one call after the other. It alone changes the blobs and ingests it owns, so that the model of
// them is exact at every moment.
type client struct {
	id   int
	w    *world
	rng  *rand.Rand
	api  api.ContentClient
	gone bool // the daemon no longer answers
}

func (c *client) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), kit.Hung)
}

// busy says that a call was refused because somebody else writes to the ingest.
func busy(err error) bool {
	return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "somebody else writes")
}

// code classifies an answer; lost is true if there was none.
func (c *client) code(err error) (code codes.Code, lost bool) {
	code = status.Code(err)
	c.w.mu.Lock()
	stopping := c.w.stopping
	c.w.mu.Unlock()
	// A daemon that is told to stop cancels what it has not ended in time.
	if (code == codes.Unavailable && !busy(err)) || (code == codes.Canceled && stopping) {
		c.gone = true
		return code, true
	}
	return code, false
}

// unexpected reports an answer that the contract does not allow.
func (c *client) unexpected(what string, err error) {
	c.w.failf("client %d: %s: unexpected answer: %v", c.id, what, err)
	c.gone = true
}

func (c *client) labels() map[string]string {
	l := map[string]string{}
	for n := c.rng.Intn(4); n > 0; n-- {
		switch c.rng.Intn(6) {
		case 0:
			l["containerd.io/gc.ref.content.l.0"] = fmt.Sprint(c.rng.Intn(1000))
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

func (c *client) newRef() string {
	c.w.mu.Lock()
	c.w.next++
	n := c.w.next
	c.w.mu.Unlock()
	switch c.rng.Intn(5) {
	case 0:
		return fmt.Sprintf("%sdefault/%d/layer-sha256:%064x", prefix(c.id), n, n)
	case 1:
		return fmt.Sprintf("%s%d ../../'\"%%\n_é", prefix(c.id), n)
	}
	return fmt.Sprintf("%s%d", prefix(c.id), n)
}

// newData makes bytes that no other call makes: mostly few, now and then several MiB.
func (c *client) newData() []byte {
	if c.rng.Intn(4) == 0 {
		return c.newDocument()
	}
	n := 1 + c.rng.Intn(5000)
	switch c.rng.Intn(12) {
	case 0, 1:
		n = 64<<10 + c.rng.Intn(256<<10)
	case 2:
		n = 1<<20 + c.rng.Intn(8<<20)
	}
	data := make([]byte, n+8)
	c.rng.Read(data)
	return data
}

// newDocument is a manifest, which the catalog learns from.
func (c *client) newDocument() []byte {
	descriptor := func(mediaType string) string {
		var sum [32]byte
		c.rng.Read(sum[:])
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%x","size":%d}`, mediaType, sum,
			1+c.rng.Intn(1<<30))
	}
	layers := descriptor("layer.v1.tar+gzip")
	for n := c.rng.Intn(20); n > 0; n-- {
		layers += "," + descriptor("layer.v1.tar+gzip")
	}
	return []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":%s,"layers":[%s]}`, descriptor("config.v1+json"), layers))
}

func (c *client) pickBlob() (digest.Digest, bool) {
	own := c.w.ownBlobs(c.id)
	if len(own) == 0 {
		return "", false
	}
	return own[c.rng.Intn(len(own))], true
}

func (c *client) pickIngest() (string, bool) {
	own := c.w.ownIngests(c.id)
	if len(own) == 0 {
		return "", false
	}
	return own[c.rng.Intn(len(own))], true
}

// call sends a unary call. want is what it must be answered with; then ends as done, or as refused.
func (c *client) call(what string, want codes.Code, outcomes []outcome, then outcome, f func(context.Context) error) bool {
	c.w.begin(c.id, what, outcomes...)
	ctx, cancel := c.ctx()
	defer cancel()
	err := f(ctx)
	code, lost := c.code(err)
	if lost {
		return false
	}
	if code != want {
		c.w.endRefused(c.id, outcome{})
		c.unexpected(fmt.Sprintf("%s (expected %v)", what, want), err)
		return false
	}
	if want == codes.OK {
		c.w.end(c.id, then)
	} else {
		c.w.endRefused(c.id, then)
	}
	return true
}

var nothing = []outcome{{}}

// --- what makes blobs --------------------------------------------------------------------------------

// put begins an ingest, and ends it in some way.
func (c *client) put() {
	data := c.newData()
	if c.id == 0 && c.rng.Intn(30) == 0 {
		data = []byte{}
	}
	total := int64(0)
	if c.rng.Intn(2) == 0 {
		total = int64(len(data))
	}
	s := c.open(c.newRef(), data, total)
	if s == nil {
		return
	}
	s.finish()
}

// resume goes on with an ingest that is there.
func (c *client) resume() {
	ref, ok := c.pickIngest()
	if !ok {
		return
	}
	g := c.w.ingest(ref)
	data, total := g.data, g.total
	switch c.rng.Intn(8) {
	case 0:
		// Another total: what was held is dropped.
		data = c.newData()
		total = int64(len(data))
	case 1:
		total = int64(len(data))
	case 2:
		total = 0
	}
	s := c.open(ref, data, total)
	if s == nil {
		return
	}
	if c.rng.Intn(6) == 0 && !s.anew(c.newData()) {
		return
	}
	s.finish()
}

// again commits bytes that are a blob already.
func (c *client) again() {
	d, ok := c.pickBlob()
	if !ok {
		return
	}
	s := c.open(c.newRef(), c.w.blob(d).data, 0)
	if s == nil || !s.writeTo(len(s.g.data)) {
		return
	}
	s.commit(commitArgs{expected: d, want: codes.AlreadyExists})
}

// race commits the same bytes by many writers at a time: one makes the blob.
func (c *client) race() {
	const n = 4
	data := c.newData()
	d := digestOf(data, false)
	var refs []string
	for i := 0; i < n; i++ {
		refs = append(refs, c.newRef())
	}
	win := kit.FromNow()
	after := outcome{ingests: map[string]*ingest{}}
	for _, ref := range refs {
		after.ingests[ref] = nil
	}
	// One of them makes the blob, or none yet; each of the others may have got as far as it liked.
	var outs []outcome
	for winner := -1; winner < n; winner++ {
		o := outcome{ingests: map[string]*ingest{}, blobs: map[digest.Digest]*blob{d: nil}}
		for i, ref := range refs {
			o.ingests[ref] = &ingest{data: data, hi: int64(len(data)), started: win, maybe: true}
			if i == winner {
				o.ingests[ref] = nil
			}
		}
		if winner >= 0 {
			o.blobs[d] = raced(data, winner, win)
		}
		outs = append(outs, o)
	}
	what := fmt.Sprintf("Race of %d bytes %s", len(data), d)
	c.own(d)
	c.w.begin(c.id, what, outs...)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := 0; i < n; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			errs[i] = c.raceOne(refs[i], data, d, fmt.Sprint(i))
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
			c.unexpected(what, fmt.Errorf("two COMMITs of one digest succeeded"))
		case err == nil:
			winner = i
		case code != codes.AlreadyExists:
			c.unexpected(what, err)
		}
	}
	if lostAny || c.gone {
		if winner >= 0 {
			// What was acknowledged must be found.
			c.w.mu.Lock()
			p := c.w.inflight[c.id]
			var keep []outcome
			for _, o := range p.outcomes {
				if b := o.blobs[d]; b != nil && b.labels["race"] == fmt.Sprint(winner) {
					keep = append(keep, o)
				}
			}
			p.outcomes = keep
			c.w.mu.Unlock()
		}
		return
	}
	if winner < 0 {
		c.unexpected(what, fmt.Errorf("every COMMIT of a new digest was refused: %v", errs))
		return
	}
	win.Hi = time.Now()
	after.blobs = map[digest.Digest]*blob{d: raced(data, winner, win)}
	c.w.end(c.id, after)
}

// raced is the blob that a writer makes which is the first of many.
func raced(data []byte, writer int, win kit.Window) *blob {
	return &blob{data: data, labels: map[string]string{"race": fmt.Sprint(writer)}, created: win, updated: win}
}

func (c *client) raceOne(ref string, data []byte, d digest.Digest, label string) error {
	ctx, cancel := c.ctx()
	defer cancel()
	st, err := c.api.Write(ctx)
	if err != nil {
		return err
	}
	half := len(data) / 2
	for _, req := range []*api.WriteContentRequest{
		{Action: api.WriteActionWrite, Ref: ref, Data: data[:half]},
		{Action: api.WriteActionCommit, Offset: int64(half), Data: data[half:], Expected: d, Labels: map[string]string{"race": label}},
	} {
		if err := st.Send(req); err != nil && err != io.EOF {
			return err
		}
		if _, err := st.Recv(); err != nil {
			return err
		}
	}
	if _, err := st.Recv(); err != io.EOF {
		return fmt.Errorf("after COMMIT: %v", err)
	}
	return nil
}

// own makes the client the owner of a digest.
func (c *client) own(d digest.Digest) {
	c.w.mu.Lock()
	c.w.owners[d] = c.id
	c.w.mu.Unlock()
}

// --- other calls -------------------------------------------------------------------------------------

func (c *client) abort() {
	ref, ok := c.pickIngest()
	if !ok {
		return
	}
	old := c.w.ingest(ref)
	gone := outcome{ingests: map[string]*ingest{ref: nil}}
	c.call(fmt.Sprintf("Abort ref=%q", ref), codes.OK, []outcome{{ingests: map[string]*ingest{ref: old}}, gone}, gone,
		func(ctx context.Context) error {
			_, err := c.api.Abort(ctx, &api.AbortRequest{Ref: ref})
			return err
		})
}

func (c *client) remove() {
	d, ok := c.pickBlob()
	if !ok {
		return
	}
	gone := outcome{blobs: map[digest.Digest]*blob{d: nil}}
	old := outcome{blobs: map[digest.Digest]*blob{d: c.w.blob(d)}}
	data := c.w.blob(d).data
	if !c.call(fmt.Sprintf("Delete %s", d), codes.OK, []outcome{old, gone}, gone, func(ctx context.Context) error {
		_, err := c.api.Delete(ctx, &api.DeleteContentRequest{Digest: d})
		return err
	}) {
		return
	}
	switch c.rng.Intn(6) {
	case 0:
		c.call(fmt.Sprintf("Info of deleted %s", d), codes.NotFound, nothing, outcome{}, func(ctx context.Context) error {
			_, err := c.api.Info(ctx, &api.InfoRequest{Digest: d})
			return err
		})
	case 1:
		c.call(fmt.Sprintf("Read of deleted %s", d), codes.NotFound, nothing, outcome{}, func(ctx context.Context) error {
			_, err := readAll(ctx, c.api, &api.ReadContentRequest{Digest: d})
			return err
		})
	case 2:
		// And once more the same bytes.
		if s := c.open(c.newRef(), data, 0); s != nil && s.writeTo(len(data)) {
			s.commit(commitArgs{expected: d, labels: c.labels(), want: codes.OK})
		}
	}
}

func (c *client) update() {
	d, ok := c.pickBlob()
	if !ok {
		return
	}
	old := c.w.blob(d)
	b := *old
	b.labels = map[string]string{}
	for k, v := range old.labels {
		b.labels[k] = v
	}
	labels := c.labels()
	var mask []string
	switch c.rng.Intn(4) {
	case 0:
		b.labels = kit.NoEmpty(labels)
	case 1:
		mask = []string{"labels"}
		b.labels = kit.NoEmpty(labels)
	default:
		names := []string{"a.b.c", "big", "größe \"x\"", "k1", "race"}
		for _, n := range names[:1+c.rng.Intn(len(names))] {
			mask = append(mask, "labels."+n)
			if labels[n] == "" {
				delete(b.labels, n)
			} else {
				b.labels[n] = labels[n]
			}
		}
	}
	what := fmt.Sprintf("Update %s mask=%q labels=%s", d, mask, kit.ShowLabels(labels))
	b.updated = kit.FromNow()
	changed := outcome{blobs: map[digest.Digest]*blob{d: &b}}
	var r *api.UpdateResponse
	if c.call(what, codes.OK, []outcome{{blobs: map[digest.Digest]*blob{d: old}}, changed}, changed, func(ctx context.Context) (err error) {
		r, err = c.api.Update(ctx, &api.UpdateRequest{Info: api.Info{Digest: d, Labels: labels, Size_: 1},
			UpdateMask: &ptypes.FieldMask{Paths: mask}})
		b.updated.Hi = time.Now()
		return err
	}) {
		c.look(what, d, &r.Info)
	}
}

// look compares an answered Info with the model and keeps its times.
func (c *client) look(what string, d digest.Digest, i *api.Info) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	b := c.w.blobs[d]
	if i.Digest != d {
		c.w.failLocked("%s: the answer names %q", what, i.Digest)
	} else if diff := b.differs(i); diff != "" {
		c.w.failLocked("%s: %s: answer %s, acknowledged %v", what, diff, showInfo(i), b)
	} else {
		b.created.At, b.updated.At = i.CreatedAt, i.UpdatedAt
	}
}

func (c *client) info() {
	d, ok := c.pickBlob()
	if !ok {
		return
	}
	what := fmt.Sprintf("Info %s", d)
	var r *api.InfoResponse
	if c.call(what, codes.OK, nothing, outcome{}, func(ctx context.Context) (err error) {
		r, err = c.api.Info(ctx, &api.InfoRequest{Digest: d})
		return err
	}) {
		c.look(what, d, &r.Info)
	}
}

func readAll(ctx context.Context, a api.ContentClient, req *api.ReadContentRequest) ([]byte, error) {
	st, err := a.Read(ctx, req)
	if err != nil {
		return nil, err
	}
	var out []byte
	for {
		r, err := st.Recv()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		if r.Offset != int64(len(out)) {
			return out, fmt.Errorf("an answer of offset %d after %d bytes", r.Offset, len(out))
		}
		out = append(out, r.Data...)
	}
}

func (c *client) read() {
	d, ok := c.pickBlob()
	if !ok {
		return
	}
	want := c.w.blob(d).data
	req := &api.ReadContentRequest{Digest: d}
	if c.rng.Intn(2) == 0 {
		req.Offset = int64(c.rng.Intn(len(want) + 1))
		req.Size_ = int64(c.rng.Intn(64 << 10))
		want = want[req.Offset:]
		if req.Size_ > 0 && req.Size_ < int64(len(want)) {
			want = want[:req.Size_]
		}
	}
	what := fmt.Sprintf("Read %s %d+%d", d, req.Offset, req.Size_)
	var got []byte
	if c.call(what, codes.OK, nothing, outcome{}, func(ctx context.Context) (err error) {
		got, err = readAll(ctx, c.api, req)
		return err
	}) && !bytes.Equal(got, want) {
		c.w.failf("%s: the %d bytes are not those of the blob", what, len(got))
	}
}

func listAll(ctx context.Context, a api.ContentClient, filters ...string) (map[digest.Digest]*api.Info, error) {
	st, err := a.List(ctx, &api.ListContentRequest{Filters: filters})
	if err != nil {
		return nil, err
	}
	seen := map[digest.Digest]*api.Info{}
	last := digest.Digest("")
	for {
		r, err := st.Recv()
		if err == io.EOF {
			return seen, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range r.Info {
			d := r.Info[i].Digest
			if d <= last {
				return nil, fmt.Errorf("%s is listed behind %s", d, last)
			}
			last = d
			seen[d] = &r.Info[i]
		}
	}
}

func (c *client) list() {
	var seen map[digest.Digest]*api.Info
	if !c.call("List", codes.OK, nothing, outcome{}, func(ctx context.Context) (err error) {
		seen, err = listAll(ctx, c.api)
		return err
	}) {
		return
	}
	for _, d := range c.w.ownBlobs(c.id) {
		if seen[d] == nil {
			c.w.failf("List: %s is missing", d)
		} else {
			c.look("List", d, seen[d])
		}
	}
	for d, i := range seen {
		c.w.mu.Lock()
		mine, there := c.w.owners[d] == c.id, c.w.blobs[d] != nil
		c.w.mu.Unlock()
		if mine && !there {
			c.w.failf("List: %s is listed, but not there: %s", d, showInfo(i))
		}
	}
}

func (c *client) status() {
	ref, ok := c.pickIngest()
	if !ok {
		return
	}
	what := fmt.Sprintf("Status ref=%q", ref)
	g := c.w.ingest(ref)
	var r *api.StatusResponse
	if !c.call(what, codes.OK, nothing, outcome{}, func(ctx context.Context) (err error) {
		r, err = c.api.Status(ctx, &api.StatusRequest{Ref: ref})
		return err
	}) {
		return
	}
	if s := r.Status; s.Ref != ref || s.Offset < g.lo || s.Offset > g.hi || s.Total != g.total || !g.started.Admits(s.StartedAt) {
		c.w.failf("%s: answer %v, acknowledged %v", what, s, g)
	}
}

func (c *client) statuses() {
	var r *api.ListStatusesResponse
	if !c.call("ListStatuses", codes.OK, nothing, outcome{}, func(ctx context.Context) (err error) {
		r, err = c.api.ListStatuses(ctx, &api.ListStatusesRequest{})
		return err
	}) {
		return
	}
	seen := map[string]bool{}
	for _, s := range r.Statuses {
		if !strings.HasPrefix(s.Ref, prefix(c.id)) {
			continue
		}
		seen[s.Ref] = true
		if g := c.w.ingest(s.Ref); g == nil || s.Offset < g.lo || s.Offset > g.hi {
			c.w.failf("ListStatuses: %v, acknowledged %v", s, g)
		}
	}
	for _, ref := range c.w.ownIngests(c.id) {
		if !seen[ref] {
			c.w.failf("ListStatuses: %q is missing", ref)
		}
	}
}

// refusals sends one call that must be refused and must change nothing.
func (c *client) refusals() {
	a := c.api
	d, ok := c.pickBlob()
	none := digestOf([]byte(c.newRef()), c.rng.Intn(2) == 0)
	expect := func(what string, want codes.Code, f func(ctx context.Context) error) {
		c.call(what, want, nothing, outcome{}, f)
	}
	switch c.rng.Intn(6) {
	case 0:
		expect("Info of the unknown", codes.NotFound, func(ctx context.Context) error {
			_, err := a.Info(ctx, &api.InfoRequest{Digest: none})
			return err
		})
	case 1:
		expect("Delete of the unknown", codes.OK, func(ctx context.Context) error {
			_, err := a.Delete(ctx, &api.DeleteContentRequest{Digest: none})
			return err
		})
	case 2:
		expect("Abort of the unknown", codes.OK, func(ctx context.Context) error {
			_, err := a.Abort(ctx, &api.AbortRequest{Ref: c.newRef()})
			return err
		})
	case 3:
		expect("Status of the unknown", codes.NotFound, func(ctx context.Context) error {
			_, err := a.Status(ctx, &api.StatusRequest{Ref: c.newRef()})
			return err
		})
	case 4:
		if ok {
			expect("Read behind the end", codes.OutOfRange, func(ctx context.Context) error {
				_, err := readAll(ctx, a, &api.ReadContentRequest{Digest: d, Offset: int64(len(c.w.blob(d).data)) + 1})
				return err
			})
		}
	case 5:
		if ok {
			expect("Update with a mask of an immutable field", codes.InvalidArgument, func(ctx context.Context) error {
				_, err := a.Update(ctx, &api.UpdateRequest{Info: api.Info{Digest: d, Labels: map[string]string{"no": "no"}},
					UpdateMask: &ptypes.FieldMask{Paths: []string{"labels.no", "size"}}})
				return err
			})
		}
	}
}

// step sends one call, or one stream, chosen at random, in a mix that keeps the population about level.
func (c *client) step() {
	r := c.rng.Intn(100)
	if len(c.w.ownBlobs(c.id)) > 14 && r < 40 {
		c.remove()
		return
	}
	if len(c.w.ownIngests(c.id)) > 6 && r < 55 {
		if r < 20 {
			c.abort()
		} else {
			c.resume()
		}
		return
	}
	switch {
	case r < 35:
		c.put()
	case r < 55:
		c.resume()
	case r < 59:
		c.again()
	case r < 62:
		c.race()
	case r < 66:
		c.abort()
	case r < 75:
		c.remove()
	case r < 83:
		c.update()
	case r < 86:
		c.info()
	case r < 90:
		c.read()
	case r < 91:
		c.list()
	case r < 94:
		c.status()
	case r < 95:
		c.statuses()
	default:
		c.refusals()
	}
}

// load runs clients until the daemon is gone, or stop is closed, or each has made its steps (0: no limit).
func load(w *world, conn *grpc.ClientConn, clients, steps int, seed int64, stop <-chan struct{}) {
	var wg sync.WaitGroup
	for i := 0; i < clients; i++ {
		c := &client{id: i, w: w, rng: rand.New(rand.NewSource(seed*1000 + int64(i))), api: api.NewContentClient(conn)}
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
