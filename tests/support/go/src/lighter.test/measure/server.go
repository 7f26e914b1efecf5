// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"lighter.test/daemon"
	"lighter.test/snapclient"
)

// Server is one of the two, running on a root of its own, and the one connection that all clients share, as
// containerd's do.
type Server struct {
	Which int
	Name  string
	*daemon.Daemon
	Conn *grpc.ClientConn
}

// StartServer starts exe on a new root in parent.
func StartServer(which int, name, exe, parent string) (*Server, error) {
	d, err := daemon.Start(daemon.Options{Exe: exe, Parent: parent})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s := &Server{Which: which, Name: name, Daemon: d}
	if s.Conn, err = snapclient.Dial(context.Background(), d.Socket); err != nil {
		d.Remove()
		return nil, err
	}
	return s, nil
}

// Stop ends the server, which must end well, and keeps its root.
func (s *Server) Stop() error {
	if s.Conn != nil {
		s.Conn.Close()
		s.Conn = nil
	}
	if err := s.Daemon.Stop(); err != nil {
		return fmt.Errorf("%s: %w; its log:\n%s", s.Name, err, s.Log())
	}
	return nil
}

// CPU returns what the process has used so far.
func (s *Server) CPU() (time.Duration, error) {
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

// Memory returns Private_Dirty and Rss in bytes.
func (s *Server) Memory() (private, rss float64, err error) {
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

// Op is one operation of one client; i counts that client's operations.
type Op func(ctx context.Context, client, i int) error

// Drive has clients repeat do until the time is over, and tells how it went.
func (s *Server) Drive(ctx context.Context, seconds float64, clients int, do Op) (Sample, int, error) {
	var stop int32
	timer := time.AfterFunc(time.Duration(seconds*float64(time.Second)), func() {
		atomic.StoreInt32(&stop, 1)
	})
	defer timer.Stop()
	return s.drive(ctx, clients, func() bool { return atomic.LoadInt32(&stop) == 0 }, do)
}

// Share has clients do the operations 0 to n-1 between them, and tells how it went. The i that do gets is the
// operation's number.
func (s *Server) Share(ctx context.Context, n, clients int, do Op) (Sample, error) {
	var next int64
	got, done, err := s.drive(ctx, clients, func() bool { return atomic.LoadInt64(&next) < int64(n) },
		func(ctx context.Context, client, _ int) error {
			if i := int(atomic.AddInt64(&next, 1) - 1); i < n {
				return do(ctx, client, i)
			}
			return errShared
		})
	if err == nil && done != n {
		err = fmt.Errorf("%d operations were done of %d", done, n)
	}
	return got, err
}

// errShared says that others have done the rest.
var errShared = fmt.Errorf("nothing is left to do")

func (s *Server) drive(ctx context.Context, clients int, goOn func() bool, do Op) (Sample, int, error) {
	var (
		wait    sync.WaitGroup
		mu      sync.Mutex
		failure error
		failed  int32
		took    = make([][]time.Duration, clients)
	)
	cpu, err := s.CPU()
	if err != nil {
		return Sample{}, 0, err
	}
	client, all, idle := machineTime()
	begin := time.Now()
	for c := 0; c < clients; c++ {
		wait.Add(1)
		go func(c int) {
			defer wait.Done()
			mine := make([]time.Duration, 0, 1<<14)
			for i := 0; goOn() && atomic.LoadInt32(&failed) == 0; i++ {
				from := time.Now()
				if err := do(ctx, c, i); err == errShared {
					break
				} else if err != nil {
					mu.Lock()
					failure = err
					mu.Unlock()
					atomic.StoreInt32(&failed, 1)
					return
				}
				mine = append(mine, time.Since(from))
			}
			took[c] = mine
		}(c)
	}
	wait.Wait()
	elapsed := time.Since(begin)
	if failure != nil {
		return Sample{}, 0, failure
	}
	after, err := s.CPU()
	if err != nil {
		return Sample{}, 0, err
	}
	got, n, err := Summarise(took, elapsed, after-cpu)
	clientAfter, allAfter, idleAfter := machineTime()
	if whole := float64(allAfter - all); err == nil && whole > 0 {
		got.Server = float64(after-cpu) / whole
		got.Client = float64(clientAfter-client) / whole
		got.Idle = float64(idleAfter-idle) / whole
	}
	return got, n, err
}

// machineTime returns the time that this process has used so far, and that of all processors: all of it, and idle or
// waiting for disks.
func machineTime() (client, all, idle time.Duration) {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		client = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return client, 0, 0
	}
	const tick = time.Second / 100
	for i, field := range strings.Fields(strings.SplitN(string(stat), "\n", 2)[0])[1:] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil || i >= 8 { // guests' time is in their host's already
			break
		}
		all += time.Duration(n) * tick
		if i == 3 || i == 4 {
			idle += time.Duration(n) * tick
		}
	}
	return client, all, idle
}
