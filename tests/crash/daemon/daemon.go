// SPDX-License-Identifier: Apache-2.0

// Package daemon starts, watches and stops one snapshotter process for a test.
package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
)

// Config says how to start a daemon.
type Config struct {
	Exe  string   // executable
	Dir  string   // where the socket, the log and the empty configuration go
	Root string   // state directory; Dir/root when empty
	Addr string   // socket path; Dir/s when empty
	Sets []string // values for --set
	Env  []string // added to the environment
	Wrap []string // command that execs the daemon, e.g. prlimit with its options
}

// Daemon is a started process.
type Daemon struct {
	Root, Addr, Log string

	cmd    *exec.Cmd
	notify *net.UnixConn
	ready  chan struct{}
	exited chan struct{}
}

var seq int

// Start starts the process and does not wait for it to be ready.
func Start(c Config) (*Daemon, error) {
	if c.Root == "" {
		c.Root = filepath.Join(c.Dir, "root")
	}
	if c.Addr == "" {
		c.Addr = filepath.Join(c.Dir, "s")
	}
	seq++
	d := &Daemon{
		Root:   c.Root,
		Addr:   c.Addr,
		Log:    filepath.Join(c.Dir, "log"),
		ready:  make(chan struct{}),
		exited: make(chan struct{}),
	}
	conf := filepath.Join(c.Dir, "empty.toml")
	if err := os.WriteFile(conf, nil, 0644); err != nil {
		return nil, err
	}
	args := append([]string{}, c.Wrap...)
	args = append(args, c.Exe, "--config", conf, "--root", c.Root, "--address", c.Addr,
		"--log-level", "info")
	for _, s := range c.Sets {
		args = append(args, "--set", s)
	}
	npath := filepath.Join(c.Dir, "n"+strconv.Itoa(seq))
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: npath, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	d.notify = nc
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0644)
	if err != nil {
		nc.Close()
		return nil, err
	}
	defer log.Close()
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+npath)
	d.cmd.Env = append(d.cmd.Env, c.Env...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		// The parent death signal comes when the thread that forked ends, so one thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := d.cmd.Start()
		started <- err
		if err == nil {
			d.cmd.Wait()
			close(d.exited)
			nc.Close()
			os.Remove(npath)
		}
	}()
	if err := <-started; err != nil {
		nc.Close()
		os.Remove(npath)
		return nil, err
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains("\n"+string(buf[:n])+"\n", "\nREADY=1\n") {
				close(d.ready)
				return
			}
		}
	}()
	return d, nil
}

// ErrExited says that the process ended before it was ready.
var ErrExited = errors.New("daemon ended before it was ready")

// WaitReady waits until the process has announced READY=1.
func (d *Daemon) WaitReady(limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-d.ready:
		return nil
	case <-d.exited:
		return ErrExited
	case <-t.C:
		return fmt.Errorf("daemon not ready after %v", limit)
	}
}

// Pid is the process id.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (d *Daemon) Exited() <-chan struct{} { return d.exited }

// Alive says whether the process still runs.
func (d *Daemon) Alive() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// Kill sends SIGKILL and waits for the end.
func (d *Daemon) Kill() {
	d.cmd.Process.Kill()
	<-d.exited
}

// Killed says whether the process died by SIGKILL.
func (d *Daemon) Killed() bool {
	<-d.exited
	ws := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// ExitCode is the exit code of an ended process, -1 when a signal ended it.
func (d *Daemon) ExitCode() int {
	<-d.exited
	return d.cmd.ProcessState.ExitCode()
}

// WaitExit waits for the process to end by itself.
func (d *Daemon) WaitExit(limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-d.exited:
		return nil
	case <-t.C:
		return fmt.Errorf("daemon still runs after %v", limit)
	}
}

// Terminate sends SIGTERM and waits for the end, which need not be a good one.
func (d *Daemon) Terminate(limit time.Duration) error {
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.WaitExit(limit); err != nil {
		d.Kill()
		return fmt.Errorf("after SIGTERM: %v", err)
	}
	return nil
}

// Stop ends the process by SIGTERM and says what was not clean about it.
func (d *Daemon) Stop(limit time.Duration) error {
	if err := d.Terminate(limit); err != nil {
		return err
	}
	if c := d.ExitCode(); c != 0 {
		return fmt.Errorf("exit after SIGTERM: %v\n%s", d.cmd.ProcessState, d.LogTail(30))
	}
	return d.Sanitizer()
}

// Dial connects to the socket. Calls on the connection fail at once when the daemon is gone.
func (d *Daemon) Dial() (*grpc.ClientConn, error) {
	return DialPath(d.Addr)
}

// DialPath connects to a socket.
func DialPath(path string) (*grpc.ClientConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	return grpc.DialContext(ctx, path, grpc.WithInsecure(), grpc.WithBlock(),
		grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(64<<20)),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) {
			var nd net.Dialer
			return nd.DialContext(ctx, "unix", a)
		}))
}

// Sanitizer reports what a sanitizer wrote to the log, if anything.
func (d *Daemon) Sanitizer() error {
	data, err := os.ReadFile(d.Log)
	if err != nil {
		return err
	}
	for _, mark := range []string{"ERROR: AddressSanitizer", "runtime error:", "ERROR: LeakSanitizer",
		"WARNING: ThreadSanitizer", "AddressSanitizer:DEADLYSIGNAL", "Assertion `", "assertion failed:"} {
		if i := bytes.Index(data, []byte(mark)); i >= 0 {
			end := i + 4000
			if end > len(data) {
				end = len(data)
			}
			return fmt.Errorf("the log holds %q:\n%s", mark, data[i:end])
		}
	}
	return nil
}

// LogTail returns the last n lines of the log.
func (d *Daemon) LogTail(n int) string {
	data, _ := os.ReadFile(d.Log)
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// LogSize is the size of the log so far; with LogSince it cuts out what came later.
func (d *Daemon) LogSize() int64 {
	st, err := os.Stat(d.Log)
	if err != nil {
		return 0
	}
	return st.Size()
}

// LogSince returns the log from an offset.
func (d *Daemon) LogSince(off int64) string {
	data, _ := os.ReadFile(d.Log)
	if int64(len(data)) < off {
		return ""
	}
	return string(data[off:])
}

// FDs counts the open descriptors of the process.
func (d *Daemon) FDs() int {
	e, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.Pid()))
	if err != nil {
		return -1
	}
	return len(e)
}

// Mem returns resident and private dirty memory in KiB.
func (d *Daemon) Mem() (rss, dirty int) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", d.Pid()))
	if err != nil {
		return -1, -1
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		w := strings.Fields(s.Text())
		if len(w) < 2 {
			continue
		}
		v, _ := strconv.Atoi(w[1])
		switch w[0] {
		case "Rss:":
			rss = v
		case "Private_Dirty:":
			dirty = v
		}
	}
	return rss, dirty
}
