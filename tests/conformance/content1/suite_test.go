// SPDX-License-Identifier: Apache-2.0

// Package content1 runs the public content suite of containerd 1.6 against a daemon's socket, through
// containerd's own proxy client: raw, and behind containerd's own metadata store.
package content1

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/content/proxy"
	"github.com/containerd/containerd/content/testsuite"
	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/namespaces"
	bolt "go.etcd.io/bbolt"

	"lighter.test/daemon"
	"lighter.test/snapclient"
)

// connect starts a daemon for this test and returns a proxy content store on its socket.
func connect(t *testing.T, args ...string) (*daemon.Daemon, content.Store) {
	t.Helper()
	d := daemon.ForTest(t, daemon.Options{Exe: os.Getenv("LIGHTER_CONTENT"), Args: args})
	conn, err := snapclient.Dial(context.Background(), d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return d, proxy.NewContentStore(contentapi.NewContentClient(conn))
}

// empty deletes every blob and every ingest, and looks whether that left anything on disk.
func empty(d *daemon.Daemon, cs content.Store) error {
	ctx := context.Background()

	ingests, err := cs.ListStatuses(ctx)
	if err != nil {
		return err
	}
	for _, ingest := range ingests {
		if err := cs.Abort(ctx, ingest.Ref); err != nil {
			return err
		}
	}
	var blobs []content.Info
	err = cs.Walk(ctx, func(info content.Info) error {
		blobs = append(blobs, info)
		return nil
	})
	if err != nil {
		return err
	}
	for _, blob := range blobs {
		if err := cs.Delete(ctx, blob.Digest); err != nil {
			return err
		}
	}
	for _, dir := range []string{"ingests", "blobs/sha256", "blobs/sha512"} {
		left, err := os.ReadDir(filepath.Join(d.Root, dir))
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("an empty store still holds %s/%s", dir, left[0].Name())
		}
	}
	return nil
}

// TestRaw puts every case straight on the socket. The cases are run one after the other, each with the store
// to itself.
func TestRaw(t *testing.T) {
	d, cs := connect(t)

	testsuite.ContentSuite(t, "raw", func(ctx context.Context, root string) (
		context.Context, content.Store, func() error, error) {
		return ctx, cs, func() error { return empty(d, cs) }, nil
	})
}

// behindMetadata puts containerd's metadata store in front, as it stands in a real containerd, each case with
// a new one.
func behindMetadata(d *daemon.Daemon, cs content.Store, opts ...metadata.DBOpt) testsuite.StoreInitFn {
	return func(ctx context.Context, root string) (
		context.Context, content.Store, func() error, error) {
		db, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o660, nil)
		if err != nil {
			return nil, nil, nil, err
		}
		name := testsuite.Name(ctx)
		var n uint64
		ctx = testsuite.SetContextWrapper(ctx, func(ctx context.Context) (
			context.Context, func(context.Context) error, error) {
			ns := fmt.Sprintf("%s-n%d", name, atomic.AddUint64(&n, 1))
			return namespaces.WithNamespace(ctx, ns), func(context.Context) error { return nil }, nil
		})
		return ctx, metadata.NewDB(db, cs, nil, opts...).ContentStore(), func() error {
			if err := db.Close(); err != nil {
				return err
			}
			return empty(d, cs)
		}, nil
	}
}

func TestBehindMetadataShared(t *testing.T) {
	d, cs := connect(t)

	testsuite.ContentSuite(t, "metadata", behindMetadata(d, cs))
	testsuite.ContentCrossNSSharedSuite(t, "metadata", behindMetadata(d, cs))
}

func TestBehindMetadataIsolated(t *testing.T) {
	d, cs := connect(t)

	testsuite.ContentSuite(t, "metadata", behindMetadata(d, cs, metadata.WithPolicyIsolated))
	testsuite.ContentCrossNSIsolatedSuite(t, "metadata",
		behindMetadata(d, cs, metadata.WithPolicyIsolated))
}
