// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"

	"../kit"
	api "github.com/containerd/containerd/api/services/content/v1"
	digest "github.com/opencontainers/go-digest"
)

// blob is a blob as the calls so far have made it. A nil *blob is a digest that is not there. Neither blobs nor
// ingests are changed in place once the world knows them, save for times that are learned by looking.
type blob struct {
	data             []byte
	labels           map[string]string
	created, updated kit.Window
}

func (b *blob) String() string {
	if b == nil {
		return "absent"
	}
	return fmt.Sprintf("{%d bytes, labels=%s created=%v updated=%v}", len(b.data), kit.ShowLabels(b.labels), b.created, b.updated)
}

func showInfo(i *api.Info) string {
	if i == nil {
		return "absent"
	}
	return fmt.Sprintf("{%d bytes, labels=%s created=%v updated=%v}", i.Size_, kit.ShowLabels(i.Labels), i.CreatedAt, i.UpdatedAt)
}

// differs says in what an answer of the daemon is not the blob; "" when it is.
func (b *blob) differs(i *api.Info) string {
	switch {
	case b == nil && i == nil:
		return ""
	case b == nil:
		return "present, expected absent"
	case i == nil:
		return "absent, expected present"
	case int64(len(b.data)) != i.Size_:
		return "size"
	case !kit.SameLabels(b.labels, i.Labels):
		return "labels"
	case !b.created.Admits(i.CreatedAt):
		return "created_at"
	case !b.updated.Admits(i.UpdatedAt):
		return "updated_at"
	}
	return ""
}

// ingest is a blob being written. What was acknowledged must be there, what was sent may be: it holds a prefix
// of data whose length is between lo and hi.
type ingest struct {
	data    []byte
	lo, hi  int64
	total   int64
	started kit.Window
	// Without bytes it is written down when its stream ends, which nobody is told: then it may be absent.
	maybe bool
	// Its bytes were seen in a file, where they stay.
	filed bool
}

// memoryBytes is how much of an ingest is held in memory, without files, while its stream lasts.
const memoryBytes = 64 << 10

// loose tells whether its bytes may have gone with the process: those of a small one have their file once its stream
// has ended, which nobody is told.
func (g *ingest) loose() bool {
	return !g.filed && g.lo <= memoryBytes && g.total <= memoryBytes
}

func (g *ingest) String() string {
	if g == nil {
		return "absent"
	}
	s := fmt.Sprintf("{%d to %d of %d bytes, total=%d", g.lo, g.hi, len(g.data), g.total)
	if g.maybe {
		s += ", or absent"
	}
	return s + "}"
}

// at is the ingest with exactly n bytes.
func (g *ingest) at(n int64) *ingest {
	c := *g
	c.lo, c.hi = n, n
	return &c
}

// held is an ingest as the daemon shows it, and the file that holds its bytes.
type held struct {
	status *api.Status
	file   string // "": there is none
}

func (h *held) String() string {
	if h == nil {
		return "absent"
	}
	return fmt.Sprintf("{%d bytes, total=%d, file %q}", h.status.Offset, h.status.Total, h.file)
}

// differs says in what an ingest that was found is not the one in the model; "" when it is.
func (g *ingest) differs(h *held) string {
	switch {
	case g == nil && h == nil:
		return ""
	case g == nil:
		return "present, expected absent"
	case h == nil && (g.maybe || g.loose()):
		return ""
	case h == nil:
		return "absent, expected present"
	case h.status.Offset < g.lo && !g.loose():
		return "acknowledged bytes are missing"
	case h.status.Offset > g.hi:
		return "more bytes than were sent"
	case h.status.Total != g.total:
		return "total"
	case !g.started.Admits(h.status.StartedAt):
		return "started_at"
	}
	var got []byte
	if h.file != "" {
		var err error
		if got, err = os.ReadFile(h.file); err != nil {
			return err.Error()
		}
	}
	if int64(len(got)) != h.status.Offset {
		return fmt.Sprintf("the file has %d bytes", len(got))
	}
	if !bytes.Equal(got, g.data[:len(got)]) {
		return "its bytes are not what was sent"
	}
	return ""
}

// found is what a daemon holds after its start.
type found struct {
	blobs   map[digest.Digest]*api.Info
	ingests map[string]*held
}

// outcome is one way a call may have ended: the state of everything it touches.
type outcome struct {
	blobs   map[digest.Digest]*blob
	ingests map[string]*ingest
}

func (o outcome) differs(f *found) string {
	bad := ""
	for k, b := range o.blobs {
		if d := b.differs(f.blobs[k]); d != "" {
			bad += fmt.Sprintf("\n      %s: %s: found %s, would be %v", k, d, showInfo(f.blobs[k]), b)
		}
	}
	for k, g := range o.ingests {
		if d := g.differs(f.ingests[k]); d != "" {
			bad += fmt.Sprintf("\n      %q: %s: found %v, would be %v", k, d, f.ingests[k], g)
		}
	}
	return bad
}

// pending is a call whose answer never came: one of its outcomes must be found.
type pending struct {
	what     string
	outcomes []outcome
}

// world is the model: what the acknowledged calls have made, and what is in flight.
type world struct {
	mu       sync.Mutex
	blobs    map[digest.Digest]*blob
	ingests  map[string]*ingest
	owners   map[digest.Digest]int
	inflight map[int]*pending
	next     int
	calls    map[string]int // acknowledged, by method
	refused  int
	unknown  map[string]int // in flight at a kill, by method and by what was found
	resumed  int64          // bytes of ingests that were found again
	failures []string
	stopping bool // the daemon has been asked to stop
}

func newWorld() *world {
	return &world{
		blobs:    map[digest.Digest]*blob{},
		ingests:  map[string]*ingest{},
		owners:   map[digest.Digest]int{},
		inflight: map[int]*pending{},
		calls:    map[string]int{},
		unknown:  map[string]int{},
	}
}

func (w *world) failf(format string, a ...interface{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(format, a...)
}

func (w *world) failLocked(format string, a ...interface{}) {
	if len(w.failures) < 20 {
		w.failures = append(w.failures, fmt.Sprintf(format, a...))
	}
}

func (w *world) failed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures
}

func (w *world) setStopping(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping = on
}

// begin records a call as in flight, before it is sent.
func (w *world) begin(client int, what string, outcomes ...outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inflight[client] = &pending{what, outcomes}
}

// end records the answer of a call.
func (w *world) end(client int, o outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[strings.Fields(w.inflight[client].what)[0]]++
	delete(w.inflight, client)
	w.apply(o)
}

// endRefused records that a call was refused, as it had to be.
func (w *world) endRefused(client int, o outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused++
	delete(w.inflight, client)
	w.apply(o)
}

func (w *world) apply(o outcome) {
	for k, b := range o.blobs {
		if b == nil {
			delete(w.blobs, k)
		} else {
			w.blobs[k] = b
		}
	}
	for k, g := range o.ingests {
		if g == nil {
			delete(w.ingests, k)
		} else {
			w.ingests[k] = g
		}
	}
}

// settle decides, from what the daemon holds after its restart, how each call in flight has ended.
func (w *world) settle(f *found) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c, p := range w.inflight {
		var why []string
		which := -1
		for n, o := range p.outcomes {
			bad := o.differs(f)
			if bad == "" {
				which = n
				break
			}
			why = append(why, fmt.Sprintf("    outcome %d:%s", n, bad))
		}
		if which < 0 {
			w.failLocked("call in flight at the kill left a state that is no outcome of it: %s\n%s",
				p.what, strings.Join(why, "\n"))
		} else {
			w.unknown[fmt.Sprintf("%s/%d", strings.Fields(p.what)[0], which)]++
			w.apply(p.outcomes[which])
		}
		delete(w.inflight, c)
	}
}

// compare checks that the daemon holds exactly the model, and learns what only looking can tell.
func (w *world) compare(f *found) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, b := range w.blobs {
		if d := b.differs(f.blobs[k]); d != "" {
			w.failLocked("%s: %s: found %s, acknowledged %v", k, d, showInfo(f.blobs[k]), b)
			continue
		}
		b.created.At, b.updated.At = f.blobs[k].CreatedAt, f.blobs[k].UpdatedAt
	}
	for k, i := range f.blobs {
		if w.blobs[k] == nil {
			w.failLocked("%s: listed, but no call made it: %s", k, showInfo(i))
		}
	}
	for k, g := range w.ingests {
		h := f.ingests[k]
		if d := g.differs(h); d != "" {
			w.failLocked("ingest %q: %s: found %v, acknowledged %v", k, d, h, g)
			continue
		}
		if h == nil {
			delete(w.ingests, k)
			continue
		}
		w.resumed += h.status.Offset
		g = g.at(h.status.Offset)
		g.maybe = false
		g.filed = g.filed || h.file != ""
		g.started.At = h.status.StartedAt
		w.ingests[k] = g
	}
	for k, h := range f.ingests {
		if w.ingests[k] == nil {
			w.failLocked("ingest %q: listed, but no call made it: %v", k, h)
		}
	}
}

const headBytes = 65 // in front of the reference in a .ref file

// ingestFiles reads ingests/: each reference once, and for each file somebody who accounts for it. It returns the
// files of the bytes by reference, "" where there is none.
func ingestFiles(root string) (map[string]string, error) {
	dir := filepath.Join(root, "ingests")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	refs := map[string]string{}
	for _, e := range entries {
		id := strings.TrimSuffix(e.Name(), ".ref")
		if _, err := strconv.ParseUint(id, 10, 64); err != nil {
			return nil, fmt.Errorf("ingests/ holds %q", e.Name())
		}
		if id == e.Name() {
			continue
		}
		head, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if len(head) <= headBytes {
			return nil, fmt.Errorf("ingests/%s has %d bytes", e.Name(), len(head))
		}
		ref := string(head[headBytes:])
		if _, twice := files[ref]; twice {
			return nil, fmt.Errorf("ingests/%s is a second one of %q", e.Name(), ref)
		}
		files[ref] = ""
		refs[id] = ref
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".ref") {
			continue
		}
		ref, ok := refs[e.Name()]
		if !ok {
			return nil, fmt.Errorf("nobody accounts for ingests/%s", e.Name())
		}
		files[ref] = filepath.Join(dir, e.Name())
	}
	return files, nil
}

// checkDisk compares what lies below root with the model; no call is under way.
func (w *world) checkDisk(root string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	files, err := ingestFiles(root)
	if err != nil {
		return err
	}
	for ref := range files {
		if w.ingests[ref] == nil {
			return fmt.Errorf("a file in ingests/ is of %q, which no call made", ref)
		}
	}
	n := 0
	for _, algorithm := range []string{"sha256", "sha512"} {
		dir := filepath.Join(root, "blobs", algorithm)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			b := w.blobs[digest.Digest(algorithm+":"+e.Name())]
			if b == nil {
				return fmt.Errorf("blobs/%s/%s is no blob", algorithm, e.Name())
			}
			got, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return err
			}
			if !bytes.Equal(got, b.data) {
				return fmt.Errorf("blobs/%s/%s does not hold what was committed", algorithm, e.Name())
			}
			n++
		}
	}
	if n != len(w.blobs) {
		return fmt.Errorf("%d files of %d blobs", n, len(w.blobs))
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case "metadata.db", "metadata.db-wal", "metadata.db-shm",
			"catalog.db", "catalog.db-wal", "catalog.db-shm", "lock", "blobs", "ingests":
		default:
			return fmt.Errorf("the root holds %q", e.Name())
		}
	}
	return nil
}

// ownBlobs and ownIngests list what is the client's, in a fixed order.
func (w *world) ownBlobs(client int) []digest.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []digest.Digest
	for k := range w.blobs {
		if w.owners[k] == client {
			out = append(out, k)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

func (w *world) ownIngests(client int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for k := range w.ingests {
		if strings.HasPrefix(k, prefix(client)) {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}

func prefix(client int) string { return fmt.Sprintf("c%d/", client) }

func (w *world) blob(k digest.Digest) *blob {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.blobs[k]
}

func (w *world) ingest(k string) *ingest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ingests[k]
}

// digestOf is the digest of data; big is for sha512.
func digestOf(data []byte, big bool) digest.Digest {
	if big {
		return digest.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512(data)))
	}
	return digest.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(data)))
}
