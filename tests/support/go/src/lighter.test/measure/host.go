// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DescribeHost tells what a reader needs to know of the machine, as "name=value".
func DescribeHost(dir string) (Facts, error) {
	var uts syscall.Utsname
	if err := syscall.Uname(&uts); err != nil {
		return nil, err
	}
	var release strings.Builder
	for _, c := range uts.Release {
		if c == 0 {
			break
		}
		release.WriteByte(byte(c))
	}
	fsType, device := fileSystem(dir)
	if fsType == "tmpfs" || fsType == "ramfs" {
		return nil, fmt.Errorf("%s is on %s: nothing there is durable, so there is nothing to compare", dir,
			fsType)
	}
	sync, err := timeSync(dir)
	if err != nil {
		return nil, err
	}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return nil, err
	}
	cpu := procField("/proc/cpuinfo", "model name")
	if strings.Contains(procField("/proc/cpuinfo", "flags"), " hypervisor") {
		cpu += ", virtual machine"
	}
	return Facts{
		fmt.Sprintf("CPU=%s; %d cores", cpu, runtime.NumCPU()),
		fmt.Sprintf("memory=%.1f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30)),
		"kernel=" + release.String(),
		fmt.Sprintf("disk=%s%s on %s, %s; write and fdatasync of 4 KiB: median %.0f µs", fsType,
			journal(fsType, device), device, writeCache(device), float64(sync.Nanoseconds())/1000),
	}, nil
}

func procField(file, name string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for _, line := range strings.Split(string(content), "\n") {
		if at := strings.IndexByte(line, ':'); at > 0 && strings.TrimSpace(line[:at]) == name {
			return strings.TrimSpace(line[at+1:])
		}
	}
	return "unknown"
}

// fileSystem finds the mount that a directory is on: the longest mount point above it.
func fileSystem(dir string) (fsType, device string) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "unknown", "unknown"
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "unknown", "unknown"
	}
	longest := -1
	for _, line := range strings.Split(string(mounts), "\n") {
		fields := strings.Fields(line)
		for i := 6; i+2 < len(fields); i++ {
			if fields[i] != "-" {
				continue
			}
			point := fields[4]
			above := point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
			if above && len(point) >= longest {
				longest = len(point)
				fsType, device = fields[i+1], fields[i+2]
			}
			break
		}
	}
	return fsType, device
}

// journal matters: where there is one, syncing any file makes every directory made before durable too.
func journal(fsType, device string) string {
	if fsType != "ext4" {
		return ""
	}
	if found, _ := filepath.Glob("/proc/fs/jbd2/" + filepath.Base(device) + "-*"); len(found) == 0 {
		return " without a journal"
	}
	return " with a journal"
}

func writeCache(device string) string {
	name := filepath.Base(device)
	if real, err := filepath.EvalSymlinks(device); err == nil {
		name = filepath.Base(real)
	}
	// A partition has no queue of its own, its disk has.
	for _, file := range []string{"queue/write_cache", "../queue/write_cache"} {
		mode, err := os.ReadFile(filepath.Join("/sys/class/block", name) + "/" + file)
		if err == nil {
			return "write cache: " + strings.TrimSpace(string(mode))
		}
	}
	return "write cache: unknown"
}

// timeSync tells what a durable write costs here, which is what every mutation costs at least.
func timeSync(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "lighter-sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	block := make([]byte, 4096)
	for i := 0; i < 200; i++ {
		from := time.Now()
		if _, err := f.WriteAt(block, int64(i%16)*4096); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		took = append(took, time.Since(from))
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	return Percentile(took, 0.5), nil
}

// SyncDisk writes back what the measured disk, and no other, has to.
func SyncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
