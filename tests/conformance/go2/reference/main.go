// SPDX-License-Identifier: Apache-2.0

// Command reference serves containerd 2.x's own overlay snapshotter on a socket, so that the cases of
// this directory can be held against the original. It takes the options of lighter-overlay that they
// use.
package main

import (
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	root := flag.String("root", "", "state `directory`")
	address := flag.String("address", "", "socket `path`")
	flag.String("set", "", "ignored")
	flag.Parse()

	sn, err := overlay.NewSnapshotter(*root, overlay.AsynchronousRemove, overlay.WithRemapIDs)
	if err != nil {
		log.Fatal(err)
	}
	defer sn.Close()
	os.Remove(*address)
	listener, err := net.Listen("unix", *address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(sn))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		server.GracefulStop()
	}()
	if path := os.Getenv("NOTIFY_SOCKET"); path != "" {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			log.Fatal(err)
		}
		conn.Write([]byte("READY=1"))
		conn.Close()
	}
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}

const maxMessage = 16 << 20
