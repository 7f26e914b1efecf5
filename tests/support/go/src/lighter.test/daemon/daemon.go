// SPDX-License-Identifier: Apache-2.0

// Package daemon starts one of lighter's daemons for a test, with a root and a socket of its own,
// and judges how it ended: a daemon that was asked to stop must exit with 0 and must not have left
// a sanitizer's report in its log.
//
// It needs nothing but the standard library, so that it serves GOPATH builds with Debian's Go and
// module builds alike.
package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// EnvExe names the daemon that tests run against.
const EnvExe = "LIGHTER_OVERLAY"

// MaxSpares is how many directories a running daemon may keep in advance of their use.
const MaxSpares = 64

// Deadlines are generous: they end a hang, they do not measure anything.
const (
	startDeadline = 60 * time.Second
	stopDeadline  = 60 * time.Second
)

// Options say how to start a daemon. The zero value is good: a fresh directory, $LIGHTER_OVERLAY.
type Options struct {
	Exe    string   // executable; default $LIGHTER_OVERLAY
	Dir    string   // holds root, socket and log; made, and owned by the Daemon, when empty
	Parent string   // where a Dir is made; default the system's temporary directory
	Args   []string // further arguments
	Env    []string // further environment, "NAME=value"
}

// Daemon is a running, or ended, daemon.
type Daemon struct {
	Exe    string
	Dir    string
	Root   string
	Socket string

	opts    Options
	ownDir  bool
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the process has been waited for
	logPath string
	logFrom int64 // the log of this process starts here; restarts append
}

// Executable returns the path of the daemon under test.
func Executable() (string, error) {
	exe := os.Getenv(EnvExe)
	if exe == "" {
		return "", errors.New(EnvExe + " does not name the daemon's executable")
	}
	return filepath.Abs(exe)
}

// StartError says that a daemon ended, or stayed silent, instead of becoming ready.
type StartError struct {
	State *os.ProcessState // how it ended; nil if it was silent and had to be killed
	Log   string
}

func (e *StartError) Error() string {
	if e.State == nil {
		return "the daemon did not become ready; its log:\n" + e.Log
	}
	return fmt.Sprintf("the daemon ended at its start: %v; its log:\n%s", e.State, e.Log)
}

// Start starts a daemon and returns when it says that it is ready (READY=1 by sd_notify). When it
// ends instead, the error is a *StartError.
func Start(opts Options) (*Daemon, error) {
	var err error

	if opts.Exe == "" {
		if opts.Exe, err = Executable(); err != nil {
			return nil, err
		}
	}
	d := &Daemon{Exe: opts.Exe, Dir: opts.Dir, opts: opts}
	if d.Dir == "" {
		if d.Dir, err = os.MkdirTemp(opts.Parent, "lighter-"); err != nil {
			return nil, err
		}
		d.ownDir = true
	}
	d.Root = filepath.Join(d.Dir, "root")
	d.Socket = filepath.Join(d.Dir, "sock")
	d.logPath = filepath.Join(d.Dir, "log")
	if err = d.run(); err != nil {
		d.Remove()
		return nil, err
	}
	return d, nil
}

// Restart starts an ended daemon again on the same root and socket, with the same options.
func (d *Daemon) Restart() error {
	if d.Running() {
		return errors.New("the daemon is still running")
	}
	return d.run()
}

func (d *Daemon) run() error {
	notify, err := net.ListenUnixgram("unixgram",
		&net.UnixAddr{Name: filepath.Join(d.Dir, "notify"), Net: "unixgram"})
	if err != nil {
		return err
	}
	// It stays as long as the process, which tells when it is stopping, too.
	hangUp := func() {
		notify.Close()
		os.Remove(filepath.Join(d.Dir, "notify"))
	}
	ok := false
	defer func() {
		if !ok {
			hangUp()
		}
	}()

	log, err := os.OpenFile(d.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if d.logFrom, err = log.Seek(0, io.SeekEnd); err != nil {
		return err
	}

	d.cmd = exec.Command(d.Exe, append([]string{"--root", d.Root, "--address", d.Socket},
		d.opts.Args...)...)
	d.cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(d.Dir, "notify")),
		d.opts.Env...)
	d.cmd.Stdout = log
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.ended = make(chan struct{})
	started := make(chan error, 1)

	// The kernel sends the parent death signal when the *thread* that forked ends, and containerd's
	// mount code ends threads: so a thread of our own forks, and stays until the daemon has gone.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(d.ended)
		err := d.cmd.Start()
		started <- err
		if err == nil {
			d.cmd.Wait() // what it says is in ProcessState
			hangUp()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	ok = true
	return d.waitReady(notify)
}

func (d *Daemon) waitReady(notify *net.UnixConn) error {
	ready := make(chan struct{})

	go func() {
		buf := make([]byte, 4096)
		said := false
		for {
			n, err := notify.Read(buf)
			if err != nil {
				return // hung up
			}
			for _, line := range strings.Split(string(buf[:n]), "\n") {
				if line == "READY=1" && !said {
					said = true
					close(ready)
				}
			}
		}
	}()
	timer := time.NewTimer(startDeadline)
	defer timer.Stop()
	select {
	case <-ready:
		return nil
	case <-timer.C:
		d.cmd.Process.Kill()
		<-d.ended
		return &StartError{Log: d.Log()}
	case <-d.ended:
		return &StartError{State: d.cmd.ProcessState, Log: d.Log()}
	}
}

// Pid returns the daemon's process id.
func (d *Daemon) Pid() int {
	return d.cmd.Process.Pid
}

// Running tells whether the process has not ended yet.
func (d *Daemon) Running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// Ended is closed when the process has ended.
func (d *Daemon) Ended() <-chan struct{} {
	return d.ended
}

// Signal sends a signal to a running daemon.
func (d *Daemon) Signal(sig os.Signal) error {
	return d.cmd.Process.Signal(sig)
}

// Wait waits for the end of the process and returns how it ended.
func (d *Daemon) Wait(deadline time.Duration) (*os.ProcessState, error) {
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case <-d.ended:
		return d.cmd.ProcessState, nil
	case <-timer.C:
		return nil, fmt.Errorf("the daemon (pid %d) did not end within %v", d.Pid(), deadline)
	}
}

// Kill ends the daemon with SIGKILL and waits until it has gone. Killing an ended one is no error.
func (d *Daemon) Kill() error {
	if d.Running() {
		d.cmd.Process.Kill()
	}
	_, err := d.Wait(stopDeadline)
	return err
}

// Stop asks the daemon to end and judges how it did: exit code 0, no sanitizer report.
func (d *Daemon) Stop() error {
	if d.Running() {
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil &&
			!errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	state, err := d.Wait(stopDeadline)
	if err != nil {
		d.Kill()
		return err
	}
	if !state.Success() {
		return fmt.Errorf("the daemon ended with: %v", state)
	}
	return d.CheckLog()
}

var report = regexp.MustCompile(
	`(?m)^.*(ERROR: \w+Sanitizer|WARNING: \w+Sanitizer|SUMMARY: \w+Sanitizer|: runtime error: ).*$`)

// CheckLog returns an error when a sanitizer has reported anything in the log so far.
func (d *Daemon) CheckLog() error {
	if line := report.FindString(d.Log()); line != "" {
		return fmt.Errorf("a sanitizer reported: %s", line)
	}
	return nil
}

// Log returns what the present, or last, process of this daemon has written so far.
func (d *Daemon) Log() string {
	log, err := os.ReadFile(d.logPath)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	if int64(len(log)) < d.logFrom {
		return ""
	}
	return string(log[d.logFrom:])
}

// Remove kills a daemon that still runs, unmounts whatever is mounted below its directory, and
// deletes the directory if the Daemon made it.
func (d *Daemon) Remove() error {
	if d.ended != nil && d.cmd.Process != nil {
		if err := d.Kill(); err != nil {
			return err
		}
	}
	unmountBelow(d.Dir)
	if !d.ownDir {
		return nil
	}
	return os.RemoveAll(d.Dir)
}

// unmountBelow detaches mounts that a failed case may have left, deepest first.
func unmountBelow(dir string) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	lines := strings.Split(string(info), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			syscall.Unmount(fields[4], syscall.MNT_DETACH)
		}
	}
}

// TB is the part of testing.TB that ForTest uses.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(args ...interface{})
	Errorf(format string, args ...interface{})
	Logf(format string, args ...interface{})
	Failed() bool
}

// ForTest starts a daemon that lives as long as the test: at its end the daemon is stopped and
// judged, if it still runs, and the log is shown if the test has failed.
func ForTest(t TB, opts Options) *Daemon {
	t.Helper()
	d, err := Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.Running() {
			if err := d.Stop(); err != nil {
				t.Errorf("%v", err)
			}
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", filepath.Base(d.Exe), tail(d.Log(), 200))
		}
		if err := d.Remove(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return d
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(all) > lines {
		all = append([]string{fmt.Sprintf("(… %d lines)", len(all)-lines)},
			all[len(all)-lines:]...)
	}
	return strings.Join(all, "\n")
}

// ShouldSkip returns why tests that mount things and start daemons cannot run here, or "".
func ShouldSkip() string {
	if os.Geteuid() != 0 {
		return "needs root: it mounts snapshots"
	}
	return ""
}

// CheckNoOrphans tells whether below root lies nothing but what an empty store may keep: a bounded number of
// spare layers, whose directories in snapshots and work hold nothing.
func CheckNoOrphans(root string) error {
	for _, part := range []string{"snapshots", "work"} {
		if err := checkSpares(filepath.Join(root, part)); err != nil {
			return err
		}
	}
	return nil
}

func checkSpares(dir string) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(entries) > MaxSpares {
		return fmt.Errorf("%d directories are left in an empty store's %s", len(entries), dir)
	}
	for _, entry := range entries {
		if _, err := strconv.ParseUint(entry.Name(), 10, 64); err != nil {
			return fmt.Errorf("a stranger is left in %s: %s", dir, entry.Name())
		}
		inside, err := os.ReadDir(filepath.Join(dir, entry.Name()))
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		if len(inside) > 0 {
			return fmt.Errorf("an empty store still holds %s",
				filepath.Join(dir, entry.Name(), inside[0].Name()))
		}
	}
	return nil
}
