// SPDX-License-Identifier: Apache-2.0

package go2

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"lighter.test/daemon"
)

const maxMessage = 16 << 20

// connect starts a daemon for this test and returns a proxy snapshotter on its socket.
func connect(t *testing.T, args ...string) (*daemon.Daemon, snapshots.Snapshotter) {
	t.Helper()
	if why := daemon.ShouldSkip(); why != "" {
		t.Skip(why)
	}
	d := daemon.ForTest(t, daemon.Options{Args: args})
	conn, err := grpc.NewClient("unix://"+d.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return d, proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "lighter-overlay")
}

// virgin tells whether containerd's own store said so of a database that never held a snapshot; the
// reference server does, a daemon of ours never may (TestEmptyStoreListsNothing).
func virgin(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsUnknown(err) &&
		strings.Contains(err.Error(), "bucket does not exist")
}

func list(ctx context.Context, sn snapshots.Snapshotter) (map[string]snapshots.Info, error) {
	all := map[string]snapshots.Info{}
	err := sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		all[info.Name] = info
		return nil
	})
	if err != nil && !virgin(err) {
		return nil, err
	}
	return all, nil
}

// removeAll removes every snapshot, children first.
func removeAll(ctx context.Context, sn snapshots.Snapshotter) error {
	all, err := list(ctx, sn)
	if err != nil {
		return err
	}
	for len(all) > 0 {
		parents := map[string]bool{}
		for _, info := range all {
			parents[info.Parent] = true
		}
		before := len(all)
		for name := range all {
			if parents[name] {
				continue
			}
			if err := sn.Remove(ctx, name); err != nil {
				return fmt.Errorf("empty the store: %w", err)
			}
			delete(all, name)
		}
		if len(all) == before {
			return errors.New("empty the store: no snapshot is a leaf")
		}
	}
	return nil
}

func cleanup(ctx context.Context, sn snapshots.Snapshotter) error {
	err := sn.(snapshots.Cleaner).Cleanup(ctx)
	if err != nil && !virgin(err) {
		return fmt.Errorf("cleanup: %w", err)
	}
	return nil
}
