// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"flag"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
)

const maxMessage = 16 << 20

// Serve is the main of a reference server: it takes the options of ours that the benchmarks and tests use,
// has register make the service on a root, and serves it on a Unix socket until it is told to end.
func Serve(register func(server *grpc.Server, root string) error) error {
	root := flag.String("root", "", "state `directory`")
	address := flag.String("address", "", "socket `path`")
	flag.Parse()
	if *root == "" || *address == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	if err := register(server, *root); err != nil {
		return err
	}
	if err := os.Remove(*address); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", *address)
	if err != nil {
		return err
	}
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
