// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The test's own executable plays the daemon when this is set, and behaves as it says.
const envPlay = "LIGHTER_TEST_PLAY"

func TestMain(m *testing.M) {
	if behaviour := os.Getenv(envPlay); behaviour != "" {
		play(behaviour)
	}
	os.Exit(m.Run())
}

func play(behaviour string) {
	if behaviour == "refuse" {
		fmt.Println("no, thank you")
		os.Exit(3)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	conn, err := net.DialUnix("unixgram", nil,
		&net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		panic(err)
	}
	conn.Write([]byte("STATUS=here\nREADY=1\n"))
	<-term
	switch behaviour {
	case "asan":
		fmt.Println("==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x1")
	case "leak":
		fmt.Println("==7==ERROR: LeakSanitizer: detected memory leaks")
		os.Exit(23)
	case "ubsan":
		fmt.Println("base/str.c:7:3: runtime error: signed integer overflow")
	}
	os.Exit(0)
}

func start(t *testing.T, behaviour string) (*Daemon, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d, err := Start(Options{Exe: exe, Env: []string{envPlay + "=" + behaviour},
		Args: []string{"-ignored"}})
	if d != nil {
		t.Cleanup(func() { d.Remove() })
	}
	return d, err
}

func TestStopAcceptsACleanEnd(t *testing.T) {
	d, err := start(t, "well")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := d.Kill(); err != nil {
		t.Error(err)
	}
	if err := d.Stop(); err == nil {
		t.Error("a killed daemon was taken for a clean end")
	}
}

func TestStopReportsSanitizersAndExitCodes(t *testing.T) {
	for behaviour, want := range map[string]string{"asan": "AddressSanitizer", "leak": "exit status 23",
		"ubsan": "runtime error"} {
		d, err := start(t, behaviour)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Stop(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", behaviour, err)
		}
	}
}

func TestStartTellsHowADaemonEnded(t *testing.T) {
	_, err := start(t, "refuse")
	var refused *StartError
	if !errors.As(err, &refused) || refused.State.ExitCode() != 3 ||
		!strings.Contains(refused.Log, "no, thank you") {
		t.Errorf("got %v", err)
	}
}

func TestCheckNoOrphansFindsWhatIsLeft(t *testing.T) {
	root := t.TempDir()
	made := func(path string) {
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	made("snapshots/1")
	made("work/2")
	if err := CheckNoOrphans(root); err != nil {
		t.Errorf("empty spares: %v", err)
	}
	made("snapshots/2/etc")
	if err := CheckNoOrphans(root); err == nil {
		t.Error("a directory with content was overlooked")
	}
	os.RemoveAll(filepath.Join(root, "snapshots", "2"))
	made("work/new-17")
	if err := CheckNoOrphans(root); err == nil {
		t.Error("a stranger was overlooked")
	}
	os.RemoveAll(filepath.Join(root, "work", "new-17"))
	for i := 0; i <= MaxSpares; i++ {
		made(fmt.Sprint("snapshots/", i))
	}
	if err := CheckNoOrphans(root); err == nil {
		t.Error("too many spares were overlooked")
	}
}
