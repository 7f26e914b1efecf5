// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/snapshots"
	"google.golang.org/grpc"

	"lighter.test/measure"
	"lighter.test/snapclient"
)

// server is one of the two, and its snapshots.
type server struct {
	*measure.Server
	sn   snapshots.Snapshotter
	held int // snapshots that are in the store
}

func startServer(o *options, which int) (*server, error) {
	s, err := measure.StartServer(which, serverNames[which], o.exe[which], o.dir)
	if err != nil {
		return nil, err
	}
	return &server{Server: s, sn: snapclient.New(s.Conn)}, nil
}

// timeStart starts the ended server again on its root and returns how long it took from exec to the
// answer of a first call, a Stat of key. The client tries to connect all the time, so what is measured
// is the server.
func (s *server) timeStart(key string) (took time.Duration, err error) {
	if err := os.Remove(s.Socket); err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	log, err := os.Create(filepath.Join(s.Dir, "log-start"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(s.Exe, "--root", s.Root, "--address", s.Socket)
	cmd.Stdout = log
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case e := <-ended:
			if err == nil && e != nil {
				err = fmt.Errorf("%s: %w", s.Name, e)
			}
		case <-time.After(time.Minute):
			cmd.Process.Kill()
			err = fmt.Errorf("%s did not stop", s.Name)
		}
	}()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := snapclient.Dial(ctx, s.Socket, grpc.WithContextDialer(
		func(ctx context.Context, addr string) (net.Conn, error) {
			for {
				conn, err := (&net.Dialer{}).DialContext(ctx, "unix", addr)
				if err == nil || ctx.Err() != nil {
					return conn, err
				}
				time.Sleep(200 * time.Microsecond)
			}
		}))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	info, err := snapclient.New(conn).Stat(ctx, key)
	if err != nil {
		return 0, err
	}
	took = time.Since(begin)
	if info.Name != key {
		return 0, fmt.Errorf("%s: Stat of %q answered %q", s.Name, key, info.Name)
	}
	return took, nil
}
