// SPDX-License-Identifier: Apache-2.0

// Command reference serves containerd's own overlay snapshotter, with the options that containerd
// 1.6's plugin gives it, on a Unix socket: what lighter-overlay is measured against, and a daemon
// on which the tests can be tested. It takes the options of lighter-overlay that they use.
package main

import (
	"log"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/containerd/snapshots/overlay"
	"google.golang.org/grpc"

	"lighter.test/measure"
)

func main() {
	err := measure.Serve(func(server *grpc.Server, root string) error {
		// containerd's plugin always adds AsynchronousRemove, and nothing else by default.
		sn, err := overlay.NewSnapshotter(root, overlay.AsynchronousRemove)
		if err == nil {
			snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(sn))
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}
