// SPDX-License-Identifier: Apache-2.0

package go2

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// What containerd 2.x's client can ask and its suite does not.

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write fills a snapshot as a user of it would, through its mounts.
func write(t *testing.T, mounts []mount.Mount, files map[string]string) {
	t.Helper()
	check(t, mount.WithTempMount(context.Background(), mounts, func(dir string) error {
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				return err
			}
		}
		return nil
	}))
}

// layer makes a committed snapshot with some files.
func layer(t *testing.T, sn snapshots.Snapshotter, name, parent string, files map[string]string,
	opts ...snapshots.Opt) {
	t.Helper()
	ctx := context.Background()
	mounts, err := sn.Prepare(ctx, "prepare-"+name, parent)
	check(t, err)
	write(t, mounts, files)
	check(t, sn.Commit(ctx, name, "prepare-"+name, opts...))
}

// expectTree compares all the regular files that a view of a committed snapshot shows.
func expectTree(t *testing.T, sn snapshots.Snapshotter, name string, want map[string]string) {
	t.Helper()
	ctx := context.Background()
	mounts, err := sn.View(ctx, "view-"+name, name)
	check(t, err)
	check(t, mount.WithReadonlyTempMount(ctx, mounts, func(dir string) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil {
				return err
			}
			if want[entry.Name()] != string(content) {
				t.Errorf("%s: %s holds %q, want %q", name, entry.Name(), content,
					want[entry.Name()])
			}
		}
		if len(entries) != len(want) {
			t.Errorf("%s: shows %d files, want %d", name, len(entries), len(want))
		}
		return nil
	}))
	check(t, sn.Remove(ctx, "view-"+name))
}

func expectInfo(t *testing.T, sn snapshots.Snapshotter, name, parent string, kind snapshots.Kind) {
	t.Helper()
	info, err := sn.Stat(context.Background(), name)
	check(t, err)
	if info.Parent != parent || info.Kind != kind {
		t.Errorf("%s has parent %q and kind %v, want %q and %v", name, info.Parent, info.Kind, parent,
			kind)
	}
}

func TestEmptyStoreListsNothing(t *testing.T) {
	_, sn := connect(t)
	ctx := context.Background()
	check(t, sn.Walk(ctx, func(context.Context, snapshots.Info) error {
		t.Error("an empty store lists a snapshot")
		return nil
	}))
	check(t, sn.(snapshots.Cleaner).Cleanup(ctx))
}

func TestCommitAdoptsParentOfParentlessActive(t *testing.T) {
	_, sn := connect(t)
	ctx := context.Background()

	layer(t, sn, "base", "", map[string]string{"below": "base", "both": "base"})
	layer(t, sn, "top", "", map[string]string{"above": "top", "both": "top"},
		snapshots.WithParent("base"))
	expectInfo(t, sn, "top", "base", snapshots.KindCommitted)
	expectTree(t, sn, "top", map[string]string{"below": "base", "above": "top", "both": "top"})

	if err := sn.Remove(ctx, "base"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removal of an adopted parent: %v, want failed precondition", err)
	}
	check(t, sn.Remove(ctx, "top"))
	check(t, sn.Remove(ctx, "base"))
}

func TestCommitAcceptsTheParentThatTheActiveHas(t *testing.T) {
	_, sn := connect(t)
	layer(t, sn, "base", "", map[string]string{"f": "1"})
	layer(t, sn, "next", "base", map[string]string{"g": "2"}, snapshots.WithParent("base"))
	expectInfo(t, sn, "next", "base", snapshots.KindCommitted)
	expectTree(t, sn, "next", map[string]string{"f": "1", "g": "2"})
}

func TestCommitWithAnUnfitParentIsRefusedAndLeavesTheActive(t *testing.T) {
	_, sn := connect(t)
	ctx := context.Background()

	layer(t, sn, "one", "", nil)
	layer(t, sn, "two", "", nil)
	_, err := sn.Prepare(ctx, "on-one", "one")
	check(t, err)
	_, err = sn.Prepare(ctx, "free", "")
	check(t, err)
	_, err = sn.Prepare(ctx, "other", "")
	check(t, err)
	_, err = sn.View(ctx, "view", "one")
	check(t, err)

	for _, c := range []struct {
		key, parent string
		is          func(error) bool
		had         string
	}{
		{"on-one", "two", errdefs.IsInvalidArgument, "one"},
		{"free", "other", errdefs.IsFailedPrecondition, ""},
		{"free", "view", errdefs.IsFailedPrecondition, ""},
		{"free", "nobody", errdefs.IsNotFound, ""},
	} {
		err := sn.Commit(ctx, "committed", c.key, snapshots.WithParent(c.parent))
		if !c.is(err) {
			t.Errorf("commit of %q with parent %q: %v", c.key, c.parent, err)
		}
		if _, err := sn.Stat(ctx, "committed"); !errdefs.IsNotFound(err) {
			t.Errorf("a refused commit left a snapshot: %v", err)
		}
		expectInfo(t, sn, c.key, c.had, snapshots.KindActive)
	}
	check(t, sn.Commit(ctx, "committed", "free", snapshots.WithParent("two")))
	expectInfo(t, sn, "committed", "two", snapshots.KindCommitted)
}

// What an unpacker does that prepares all layers without their parents and names them in Commit.
func TestLayersPreparedSideBySideAreChainedByCommit(t *testing.T) {
	_, sn := connect(t)
	ctx := context.Background()
	const n = 8
	var wait sync.WaitGroup
	var failed [n]error

	for i := range n {
		wait.Go(func() {
			mounts, err := sn.Prepare(ctx, fmt.Sprintf("extract-%d", i), "")
			if err == nil {
				err = mount.WithTempMount(ctx, mounts, func(dir string) error {
					own := filepath.Join(dir, fmt.Sprint("own-", i))
					if err := os.WriteFile(own, []byte("x"), 0o644); err != nil {
						return err
					}
					return os.WriteFile(filepath.Join(dir, "all"),
						[]byte(fmt.Sprint(i)), 0o644)
				})
			}
			failed[i] = err
		})
	}
	wait.Wait()
	for _, err := range failed {
		check(t, err)
	}

	parent := ""
	want := map[string]string{}
	for i := range n {
		name := fmt.Sprint("chain-", i)
		check(t, sn.Commit(ctx, name, fmt.Sprintf("extract-%d", i), snapshots.WithParent(parent)))
		want[fmt.Sprint("own-", i)] = "x"
		want["all"] = fmt.Sprint(i)
		expectInfo(t, sn, name, parent, snapshots.KindCommitted)
		expectTree(t, sn, name, want)
		parent = name
	}
}

const (
	uidLabel    = "containerd.io/snapshot/uidmapping"
	gidLabel    = "containerd.io/snapshot/gidmapping"
	refLabel    = "containerd.io/snapshot.ref"
	parentLabel = "containerd.io/snapshot/parent-chain-id"
)

// upperOf is the directory that a snapshot's own files are in.
func upperOf(t *testing.T, root string, mounts []mount.Mount) string {
	t.Helper()
	upper := mounts[0].Source
	for _, option := range mounts[0].Options {
		if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
			upper = dir
		}
	}
	if !strings.HasPrefix(upper, root) {
		t.Fatalf("the upper directory %q is not below the root %q", upper, root)
	}
	return upper
}

func owner(t *testing.T, root string, mounts []mount.Mount) (uid, gid uint32) {
	t.Helper()
	var st syscall.Stat_t
	check(t, syscall.Stat(upperOf(t, root, mounts), &st))
	return st.Uid, st.Gid
}

func TestIdMapLabelsGiveMappedMountsAndOwner(t *testing.T) {
	d, sn := connect(t)
	ctx := context.Background()
	labels := snapshots.WithLabels(map[string]string{
		uidLabel: "0:100000:65536", gidLabel: "0:200000:65536"})

	layer(t, sn, "base", "", map[string]string{"f": "1"})
	for key, parent := range map[string]string{"container": "base", "scratch": ""} {
		prepared, err := sn.Prepare(ctx, key, parent, labels)
		check(t, err)
		again, err := sn.Mounts(ctx, key)
		check(t, err)
		for _, mounts := range [][]mount.Mount{prepared, again} {
			for _, option := range []string{"uidmap=0:100000:65536", "gidmap=0:200000:65536"} {
				if len(mounts) != 1 || !slices.Contains(mounts[0].Options, option) {
					t.Errorf("%s: no %s in %v", key, option, mounts)
				}
			}
		}
		if uid, gid := owner(t, d.Root, prepared); uid != 100000 || gid != 200000 {
			t.Errorf("%s: the upper directory belongs to %d:%d", key, uid, gid)
		}
	}

	// Root of the container owns what root of the image owns: the kernel maps the lower layers.
	mounts, err := sn.Mounts(ctx, "container")
	check(t, err)
	dir := t.TempDir()
	check(t, mount.All(mounts, dir))
	defer mount.UnmountAll(dir, 0)
	var st syscall.Stat_t
	check(t, syscall.Stat(filepath.Join(dir, "f"), &st))
	if st.Uid != 100000 || st.Gid != 200000 {
		t.Errorf("a file of the image belongs to %d:%d in the mount", st.Uid, st.Gid)
	}
}

// The labels of an extraction are the image's, so it must not choose who owns a layer's root.
func TestIdMapLabelsOfAnExtractionAreIgnored(t *testing.T) {
	d, sn := connect(t)
	ctx := context.Background()
	key := "extract-1-abcd sha256:0123"

	mounts, err := sn.Prepare(ctx, key, "", snapshots.WithLabels(map[string]string{
		refLabel: "sha256:0123", uidLabel: "0:100000:65536", gidLabel: "0:200000:65536"}))
	check(t, err)
	if uid, gid := owner(t, d.Root, mounts); uid != 0 || gid != 0 {
		t.Errorf("the layer's root belongs to %d:%d", uid, gid)
	}
	again, err := sn.Mounts(ctx, key)
	check(t, err)
	for _, m := range append(mounts, again...) {
		for _, option := range m.Options {
			if strings.HasPrefix(option, "uidmap=") || strings.HasPrefix(option, "gidmap=") {
				t.Errorf("the mount is mapped: %v", m)
			}
		}
	}
}

// readOnly is how containerd 2.4 tells that a layer has been staged and needs not be applied.
func readOnly(m mount.Mount) bool {
	if m.Type == "overlay" {
		return slices.Contains(m.Options, "ro") || !slices.ContainsFunc(m.Options,
			func(option string) bool { return strings.HasPrefix(option, "upperdir=") })
	}
	return m.Type == "erofs" || slices.Contains(m.Options, "ro")
}

func extract(t *testing.T, sn snapshots.Snapshotter, parentless bool) []mount.Mount {
	t.Helper()
	labels := map[string]string{refLabel: "sha256:4567"}
	parent := "base"
	if parentless {
		labels[parentLabel] = "sha256:0123"
		parent = ""
	}
	mounts, err := sn.Prepare(context.Background(), "extract-2-efgh sha256:4567", parent,
		snapshots.WithLabels(labels))
	check(t, err)
	if len(mounts) == 0 || readOnly(mounts[len(mounts)-1]) {
		t.Errorf("an extraction got a read-only mount, which 2.4 takes for a staged layer: %v", mounts)
	}
	return mounts
}

func TestAnExtractionIsNeverAnsweredReadOnly(t *testing.T) {
	_, sn := connect(t)
	layer(t, sn, "base", "", nil)
	extract(t, sn, false)
}

func TestParentlessExtractionIsABindMountByDefault(t *testing.T) {
	_, sn := connect(t)
	if mounts := extract(t, sn, true); mounts[0].Type != "bind" {
		t.Errorf("got %v", mounts)
	}
}

// A bind mount would lose whiteouts: containerd's differ makes what overlayfs knows of them only for an
// overlay mount, whose upper directory it then writes to.
func TestWithRebaseParentlessExtractionIsAnOverlayMount(t *testing.T) {
	d, sn := connect(t, "--set", "overlay.rebase=true")
	ctx := context.Background()

	layer(t, sn, "base", "", map[string]string{"gone": "1", "stays": "2"})
	mounts := extract(t, sn, true)
	if mounts[0].Type != "overlay" {
		t.Fatalf("got %v", mounts)
	}
	// It must be mountable, and show nothing of another layer.
	check(t, mount.WithTempMount(ctx, mounts, func(dir string) error {
		entries, err := os.ReadDir(dir)
		if len(entries) > 0 {
			t.Errorf("a parentless snapshot shows %v", entries)
		}
		return err
	}))
	whiteout := filepath.Join(upperOf(t, d.Root, mounts), "gone")
	check(t, syscall.Mknod(whiteout, syscall.S_IFCHR, 0))
	check(t, sn.Commit(ctx, "top", "extract-2-efgh sha256:4567", snapshots.WithParent("base")))
	expectTree(t, sn, "top", map[string]string{"stays": "2"})
}

// A hundred Infos are one message in containerd, however long they are; a client takes 16 MiB.
func TestListOfLongLabelsFitsIntoMessages(t *testing.T) {
	_, sn := connect(t)
	ctx := context.Background()
	const n = 120
	labels := map[string]string{}
	for i := range 60 {
		labels[fmt.Sprintf("containerd.io/snapshot/%d", i)] = strings.Repeat("x", 4000)
	}
	for i := range n {
		_, err := sn.Prepare(ctx, fmt.Sprint("key-", i), "", snapshots.WithLabels(labels))
		check(t, err)
	}
	seen := 0
	check(t, sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		seen++
		if len(info.Labels) != len(labels) {
			t.Errorf("%s has %d labels", info.Name, len(info.Labels))
		}
		return nil
	}))
	if seen != n {
		t.Errorf("listed %d of %d", seen, n)
	}
}

func TestHealthServiceAnswersAGrpcClient(t *testing.T) {
	d, _ := connect(t)
	ctx := context.Background()
	conn, err := grpc.NewClient("unix://"+d.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	defer conn.Close()
	health := grpc_health_v1.NewHealthClient(conn)

	answer, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	check(t, err)
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("status is %v", answer.Status)
	}
	_, err = health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nobody"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
	watch, err := health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	check(t, err)
	answer, err = watch.Recv()
	check(t, err)
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("watched status is %v", answer.Status)
	}
}
