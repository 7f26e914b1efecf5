// SPDX-License-Identifier: Apache-2.0

// Command reference serves containerd's own overlay snapshotter, with the options that containerd
// 1.6's plugin gives it, on a Unix socket: what lighter-overlay is measured against, and a daemon
// on which the tests can be tested. It takes the options of lighter-overlay that they use.
package main

import (
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/containerd/snapshots/overlay"
	"google.golang.org/grpc"
)

const maxMessage = 16 << 20

func main() {
	root := flag.String("root", "", "state `directory`")
	address := flag.String("address", "", "socket `path`")
	flag.Parse()
	if *root == "" || *address == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := serve(*root, *address); err != nil {
		log.Fatal(err)
	}
}

func serve(root, address string) error {
	// containerd's plugin always adds AsynchronousRemove, and nothing else by default.
	sn, err := overlay.NewSnapshotter(root, overlay.AsynchronousRemove)
	if err != nil {
		return err
	}
	defer sn.Close()

	if err := os.Remove(address); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(sn))

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		server.GracefulStop()
	}()
	if err := notify("READY=1"); err != nil {
		return err
	}
	return server.Serve(listener)
}

// notify is sd_notify: one datagram to the socket that the environment names.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
