// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/snapshots"
	"google.golang.org/grpc"

	"lighter.test/daemon"
	"lighter.test/snapclient"
)

// server is one of the two, running on a root of its own, and the one connection that all clients
// share, as containerd's do.
type server struct {
	which int
	*daemon.Daemon
	conn *grpc.ClientConn
	sn   snapshots.Snapshotter
	held int // snapshots that are in the store
}

func startServer(o *options, which int) (*server, error) {
	d, err := daemon.Start(daemon.Options{Exe: o.exe[which], Parent: o.dir})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", serverNames[which], err)
	}
	s := &server{which: which, Daemon: d}
	if s.conn, err = snapclient.Dial(context.Background(), d.Socket); err != nil {
		d.Remove()
		return nil, err
	}
	s.sn = snapclient.New(s.conn)
	return s, nil
}

// stop ends the server, which must end well, and keeps its root.
func (s *server) stop() error {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	if err := s.Daemon.Stop(); err != nil {
		return fmt.Errorf("%s: %w; its log:\n%s", serverNames[s.which], err, s.Log())
	}
	return nil
}

// cpu returns what the process has used so far.
func (s *server) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Pid()))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12} { // utime, stime: fields 14 and 15 of proc(5)
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const userHz = 100
	return time.Duration(ticks) * time.Second / userHz, nil
}

// memory returns Private_Dirty and Rss in bytes.
func (s *server) memory() (private, rss float64, err error) {
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.Pid()))
	if err != nil {
		return 0, 0, err
	}
	for _, line := range strings.Split(string(rollup), "\n") {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		kb, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return 0, 0, err
		}
		switch fields[0] {
		case "Private_Dirty:":
			private = kb * 1024
		case "Rss:":
			rss = kb * 1024
		}
	}
	if private == 0 || rss == 0 {
		return 0, 0, fmt.Errorf("smaps_rollup does not tell Private_Dirty and Rss")
	}
	return private, rss, nil
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
				err = fmt.Errorf("%s: %w", serverNames[s.which], e)
			}
		case <-time.After(time.Minute):
			cmd.Process.Kill()
			err = fmt.Errorf("%s did not stop", serverNames[s.which])
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
		return 0, fmt.Errorf("%s: Stat of %q answered %q", serverNames[s.which], key, info.Name)
	}
	return took, nil
}
