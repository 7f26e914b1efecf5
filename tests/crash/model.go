// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"./kit"
	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
)

// state is one snapshot as the calls so far have made it. A nil *state is a key that is not there.
// States are never changed in place once the world knows them, save for what is learned by looking
// (exact times, mounts, usage).
type state struct {
	owner            int
	kind             api.Kind
	parent           string
	labels           map[string]string
	created, updated kit.Window
	mounts           []string          // nil: not yet seen
	dir              string            // its own fs directory; "": not yet seen, or a view
	uid              int               // who owns dir
	files            map[string]string // name -> content, written and fsynced
	usage            *api.UsageResponse
}

func (s *state) clone() *state {
	c := *s
	c.labels = map[string]string{}
	for k, v := range s.labels {
		c.labels[k] = v
	}
	return &c
}

func (s *state) String() string {
	if s == nil {
		return "absent"
	}
	return fmt.Sprintf("{%v parent=%q labels=%s created=%v updated=%v}", s.kind, s.parent,
		kit.ShowLabels(s.labels), s.created, s.updated)
}

func showInfo(i *api.Info) string {
	if i == nil {
		return "absent"
	}
	return fmt.Sprintf("{%v parent=%q labels=%s created=%v updated=%v}", i.Kind, i.Parent,
		kit.ShowLabels(i.Labels), i.CreatedAt.Format(time.RFC3339Nano), i.UpdatedAt.Format(time.RFC3339Nano))
}

// differs says in what an answer of the daemon is not the state; "" when it is.
func (s *state) differs(i *api.Info) string {
	switch {
	case s == nil && i == nil:
		return ""
	case s == nil:
		return "present, expected absent"
	case i == nil:
		return "absent, expected present"
	case s.kind != i.Kind:
		return "kind"
	case s.parent != i.Parent:
		return "parent"
	case !kit.SameLabels(s.labels, i.Labels):
		return "labels"
	case !s.created.Admits(i.CreatedAt):
		return "created_at"
	case !s.updated.Admits(i.UpdatedAt):
		return "updated_at"
	}
	return ""
}

// learn keeps what can only be known by looking.
func (s *state) learn(i *api.Info) {
	s.created.At = i.CreatedAt
	s.updated.At = i.UpdatedAt
}

// outcome is one way a call may have ended: the state of every key it touches.
type outcome map[string]*state

// pending is a call whose answer never came: exactly one outcome must be found.
type pending struct {
	what     string
	outcomes []outcome
}

// world is the model: what the acknowledged calls have made, and what is in flight.
type world struct {
	mu       sync.Mutex
	snaps    map[string]*state
	inflight map[int]*pending
	doomed   map[string]bool // a Remove of this name was ever sent
	borrowed map[string]bool // another client ever sent a Prepare or View on this name
	next     int
	calls    map[string]int // acknowledged, by method
	refused  int
	unknown  map[string]int // in flight at a kill, by method and by what was found
	failures []string
	stopping bool // the daemon has been asked to stop
}

func newWorld() *world {
	return &world{
		snaps:    map[string]*state{},
		inflight: map[int]*pending{},
		doomed:   map[string]bool{},
		borrowed: map[string]bool{},
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

// begin records a call as in flight, before it is sent.
func (w *world) begin(client int, what string, outcomes ...outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inflight[client] = &pending{what, outcomes}
}

// end records the answer of a call; a nil outcome means that it changed nothing.
func (w *world) end(client int, o outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.inflight[client]
	delete(w.inflight, client)
	if o == nil {
		w.refused++
		return
	}
	w.calls[strings.Fields(p.what)[0]]++
	w.apply(o)
}

func (w *world) apply(o outcome) {
	for k, s := range o {
		if s == nil {
			delete(w.snaps, k)
		} else {
			w.snaps[k] = s
		}
	}
}

// settle decides, from what the daemon lists after its restart, how each call in flight has ended.
func (w *world) settle(seen map[string]*api.Info) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c, p := range w.inflight {
		var match outcome
		var why []string
		which := 0
		for n, o := range p.outcomes {
			bad := ""
			for k, s := range o {
				if d := s.differs(seen[k]); d != "" {
					bad += fmt.Sprintf("\n      %q: %s: found %s, would be %v", k, d, showInfo(seen[k]), s)
				}
			}
			if bad == "" {
				match, which = o, n
				break
			}
			why = append(why, fmt.Sprintf("    outcome %d:%s", n, bad))
		}
		if match == nil {
			w.failLocked("call in flight at the kill left a state that is no outcome of it: %s\n%s",
				p.what, strings.Join(why, "\n"))
		} else {
			w.unknown[fmt.Sprintf("%s/%d", strings.Fields(p.what)[0], which)]++
			w.apply(match)
		}
		delete(w.inflight, c)
	}
}

// compare checks that the daemon lists exactly the model.
func (w *world) compare(seen map[string]*api.Info) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, s := range w.snaps {
		if d := s.differs(seen[k]); d != "" {
			w.failLocked("%q: %s: found %s, acknowledged %v", k, d, showInfo(seen[k]), s)
			continue
		}
		s.learn(seen[k])
	}
	for k, i := range seen {
		if w.snaps[k] == nil {
			w.failLocked("%q: listed, but no call made it: %s", k, showInfo(i))
		}
		if i.Parent == "" {
			continue
		}
		if p := seen[i.Parent]; p == nil {
			w.failLocked("%q: its parent %q is not listed", k, i.Parent)
		} else if p.Kind != api.KindCommitted {
			w.failLocked("%q: its parent %q is %v", k, i.Parent, p.Kind)
		}
	}
}

// lowerdirs are the fs directories of a parent and its parents, nearest first; ok only if all are known.
func (w *world) lowerdirs(parent string) (dirs []string, ok bool) {
	for parent != "" {
		s := w.snaps[parent]
		if s == nil || s.dir == "" {
			return nil, false
		}
		dirs = append(dirs, s.dir)
		parent = s.parent
	}
	return dirs, true
}

func (w *world) depth(name string) int {
	n := 0
	for name != "" && w.snaps[name] != nil {
		name = w.snaps[name].parent
		n++
	}
	return n
}

func (w *world) hasChild(name string) bool {
	for _, s := range w.snaps {
		if s.parent == name {
			return true
		}
	}
	return false
}

// flatMounts makes mounts comparable.
func flatMounts(mm []*types.Mount) []string {
	out := []string{}
	for _, m := range mm {
		out = append(out, m.Type+" "+m.Source+" "+strings.Join(m.Options, ","))
	}
	return out
}

// place is where a mount lies on disk.
type place struct {
	upper, work string
	lower       []string
	ro          bool
}

func placeOf(mm []*types.Mount) (p place, err error) {
	if len(mm) != 1 {
		return p, fmt.Errorf("%d mounts, expected one: %v", len(mm), flatMounts(mm))
	}
	m := mm[0]
	switch m.Type {
	case "bind":
		for _, o := range m.Options {
			if o == "ro" {
				p.ro = true
			}
		}
		if p.ro {
			p.lower = []string{m.Source}
		} else {
			p.upper = m.Source
		}
	case "overlay":
		for _, o := range m.Options {
			switch {
			case strings.HasPrefix(o, "upperdir="):
				p.upper = o[len("upperdir="):]
			case strings.HasPrefix(o, "workdir="):
				p.work = o[len("workdir="):]
			case strings.HasPrefix(o, "lowerdir="):
				p.lower = strings.Split(o[len("lowerdir="):], ":")
			}
		}
		p.ro = p.upper == ""
	default:
		return p, fmt.Errorf("mount type %q", m.Type)
	}
	return p, nil
}

// checkPlace says what is wrong with the mount of a snapshot of this kind on this parent.
func (w *world) checkPlace(s *state, p place) string {
	if (s.kind == api.KindView) != p.ro {
		return fmt.Sprintf("read-only is %v for a snapshot of kind %v", p.ro, s.kind)
	}
	if !p.ro && s.dir != "" && s.dir != p.upper {
		return fmt.Sprintf("writes would go to %s, were told to go to %s before", p.upper, s.dir)
	}
	want, ok := w.lowerdirs(s.parent)
	if !ok {
		return ""
	}
	if p.ro && s.parent == "" {
		if len(p.lower) != 1 {
			return fmt.Sprintf("view without parent lies on %v", p.lower)
		}
		return ""
	}
	if strings.Join(want, ":") != strings.Join(p.lower, ":") {
		return fmt.Sprintf("lower directories %v, expected %v", p.lower, want)
	}
	return ""
}
