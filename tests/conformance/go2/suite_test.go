// SPDX-License-Identifier: Apache-2.0

// Package go2 runs the public snapshotter suite of containerd 2.x against a daemon's socket, through
// containerd's own proxy client: raw, and behind containerd's own metadata store. One source serves
// all versions; the module files beside it choose one (see run).
package go2

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	bolt "go.etcd.io/bbolt"

	"lighter.test/daemon"
)

// The suite expects less of a rename where the snapshotter's name says overlayfs.
const suiteName = "overlayfs"

func init() {
	// containerd's suite wants to be told that it may mount things.
	if err := flag.Set("test.root", "true"); err != nil {
		panic(err)
	}
}

// TestRaw puts every case straight on the socket. The cases use the same keys, so each has the store
// to itself: the suite starts them in parallel, the factory lets one in at a time, and what a case
// leaves must be removable down to an empty store.
func TestRaw(t *testing.T) {
	d, sn := connect(t)
	var one sync.Mutex

	testsuite.SnapshotterSuite(t, suiteName, func(ctx context.Context, root string) (
		snapshots.Snapshotter, func() error, error) {
		one.Lock()
		return sn, func() error {
			defer one.Unlock()
			unmountBelow(filepath.Dir(root))
			ctx := context.Background()
			if err := removeAll(ctx, sn); err != nil {
				return err
			}
			if err := cleanup(ctx, sn); err != nil {
				return err
			}
			return daemon.CheckNoOrphans(d.Root)
		}, nil
	})
}

// TestBehindMetadata puts containerd's metadata store in front, as it stands in a real containerd.
// All cases run at once, each in a namespace of its own, and share the store and the backend.
func TestBehindMetadata(t *testing.T) {
	d, sn := connect(t)

	db, err := bolt.Open(filepath.Join(t.TempDir(), "metadata.db"), 0o660, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	meta := metadata.NewDB(db, nil, map[string]snapshots.Snapshotter{"lighter": sn})
	if err := meta.Init(context.Background()); err != nil {
		t.Fatal(err)
	}

	var n atomic.Int32
	// The subtest is there to wait for the parallel cases.
	t.Run("Suite", func(t *testing.T) {
		testsuite.SnapshotterSuite(t, suiteName, func(ctx context.Context, root string) (
			snapshots.Snapshotter, func() error, error) {
			own := &inNamespace{
				Snapshotter: meta.Snapshotter("lighter"),
				namespace:   fmt.Sprintf("case-%d", n.Add(1)),
			}
			return own, func() error {
				unmountBelow(filepath.Dir(root))
				ctx := context.Background()
				if err := removeAll(ctx, own); err != nil {
					return err
				}
				// Other cases are in the midst of their work: collecting must spare it.
				_, err := meta.GarbageCollect(ctx)
				return err
			}, nil
		})
	})

	// What users have removed, garbage collection removes from the backend too: rows and directories.
	ctx := context.Background()
	if _, err := meta.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	left, err := list(ctx, sn)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("garbage collection left %d snapshots: %v", len(left), left)
	}
	if err := cleanup(ctx, sn); err != nil {
		t.Error(err)
	}
	if err := daemon.CheckNoOrphans(d.Root); err != nil {
		t.Error(err)
	}
}

// inNamespace is a snapshotter whose every call is made in one namespace, whatever the caller's is.
type inNamespace struct {
	snapshots.Snapshotter
	namespace string
}

func (s *inNamespace) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, s.namespace)
}

func (s *inNamespace) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	return s.Snapshotter.Stat(s.in(ctx), key)
}

func (s *inNamespace) Update(ctx context.Context, info snapshots.Info, paths ...string) (
	snapshots.Info, error) {
	return s.Snapshotter.Update(s.in(ctx), info, paths...)
}

func (s *inNamespace) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	return s.Snapshotter.Usage(s.in(ctx), key)
}

func (s *inNamespace) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	return s.Snapshotter.Mounts(s.in(ctx), key)
}

func (s *inNamespace) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) (
	[]mount.Mount, error) {
	return s.Snapshotter.Prepare(s.in(ctx), key, parent, opts...)
}

func (s *inNamespace) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) (
	[]mount.Mount, error) {
	return s.Snapshotter.View(s.in(ctx), key, parent, opts...)
}

func (s *inNamespace) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return s.Snapshotter.Commit(s.in(ctx), name, key, opts...)
}

func (s *inNamespace) Remove(ctx context.Context, key string) error {
	return s.Snapshotter.Remove(s.in(ctx), key)
}

func (s *inNamespace) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.Snapshotter.Walk(s.in(ctx), fn, filters...)
}

// Close must not close the store that the other cases still use.
func (s *inNamespace) Close() error {
	return nil
}

// unmountBelow takes away what a failed case has left mounted, so that the next one starts clean.
func unmountBelow(dir string) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for _, line := range strings.Split(string(info), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			mount.UnmountAll(fields[4], 0)
		}
	}
}
