// SPDX-License-Identifier: Apache-2.0

// Package snapclient talks to a snapshotter's socket with the client of containerd 1.6, as Debian
// packages it. It is for GOPATH builds.
package snapclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"google.golang.org/grpc"
)

// MaxMessage is containerd's limit for a message, each way.
const MaxMessage = 16 << 20

// Dial connects to a Unix socket as containerd does. Further options come last, so they win.
func Dial(ctx context.Context, socket string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	all := []grpc.DialOption{
		grpc.WithInsecure(),
		grpc.WithBlock(),
		grpc.FailOnNonTempDialError(true),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage),
			grpc.MaxCallSendMsgSize(MaxMessage)),
	}
	return grpc.DialContext(ctx, socket, append(all, opts...)...)
}

// New returns containerd's proxy snapshotter on a connection.
func New(conn *grpc.ClientConn) snapshots.Snapshotter {
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "lighter-overlay")
}

// List returns all snapshots by name.
func List(ctx context.Context, sn snapshots.Snapshotter) (map[string]snapshots.Info, error) {
	all := map[string]snapshots.Info{}
	err := sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		all[info.Name] = info
		return nil
	})
	// containerd's own store calls a database that never held a snapshot "not found", and its
	// service makes Unknown of that.
	if err != nil && !errdefs.IsNotFound(err) && !isVirgin(err) {
		return nil, err
	}
	return all, nil
}

// Remove removes every snapshot, children first.
func Remove(ctx context.Context, sn snapshots.Snapshotter) error {
	all, err := List(ctx, sn)
	if err != nil {
		return err
	}
	children := map[string]int{}
	for _, info := range all {
		if info.Parent != "" {
			children[info.Parent]++
		}
	}
	var leaves []string
	for name := range all {
		if children[name] == 0 {
			leaves = append(leaves, name)
		}
	}
	for len(leaves) > 0 {
		name := leaves[len(leaves)-1]
		leaves = leaves[:len(leaves)-1]
		if err := sn.Remove(ctx, name); err != nil {
			return fmt.Errorf("empty the store: %w", err)
		}
		parent := all[name].Parent
		delete(all, name)
		if parent != "" {
			if children[parent]--; children[parent] == 0 {
				leaves = append(leaves, parent)
			}
		}
	}
	if len(all) > 0 {
		return fmt.Errorf("empty the store: %d snapshots have no leaf below them", len(all))
	}
	return nil
}

// Empty removes every snapshot and has the directories cleaned up.
func Empty(ctx context.Context, sn snapshots.Snapshotter) error {
	if err := Remove(ctx, sn); err != nil {
		return err
	}
	err := sn.(snapshots.Cleaner).Cleanup(ctx)
	if err != nil && !errdefs.IsNotFound(err) && !isVirgin(err) {
		return fmt.Errorf("cleanup: %w", err)
	}
	return nil
}

func isVirgin(err error) bool {
	return err != nil && errors.Is(err, errdefs.ErrUnknown) && strings.Contains(err.Error(), "bucket does not exist")
}
