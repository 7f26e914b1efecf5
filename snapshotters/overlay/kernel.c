/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"
#include "snapshotters/overlay/kernel_child.h"

/* Below the root, which is locked and ours alone; an earlier one, left by a crash, is removed first. */
#define PROBE_DIR "probe"

enum probe_dir { LOWER, UPPER, WORK, MERGED, MAPPED, N_PROBE_DIRS };

/**
 * struct probe - all that the child needs, made before it
 * @on_tmpfs: the disk is full, so that the child makes the directories for itself, see stand_in()
 */
struct probe {
	int root_fd;
	int dir_fd;
	bool on_tmpfs;
	char root[PATH_MAX];
	char dir[PATH_MAX];
	char dirs[N_PROBE_DIRS][PATH_MAX];
	char plain_options[4 * PATH_MAX];
	char idmap_options[4 * PATH_MAX];
};

/* What the child found: 0, or the errno with which a step failed. */
struct finding {
	int overlay_errno;
	int idmap_errno;
};

static const char *const dir_names[N_PROBE_DIRS] = {"lower", "upper", "work", "merged", "mapped"};

/* --- in the child -------------------------------------------------------------------------------- */

static int child_wait_forever(void *arg)
{
	kernel_child_die_with(*(const pid_t *)arg);
	for (;;)
		pause();
	return 0;
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t len = (ssize_t)strlen(text), n = -1;

	if (fd >= 0) {
		n = write(fd, text, (size_t)len);
		close(fd);
	}
	return n == len ? 0 : -1;
}

/* "/proc/<pid>/<name>" without stdio. */
static void proc_path(char *buf, pid_t pid, const char *name)
{
	char digits[16];
	size_t n = 0, pos = 6;

	memcpy(buf, "/proc/", 6);
	do {
		digits[n++] = (char)('0' + pid % 10);
		pid /= 10;
	} while (pid);
	while (n)
		buf[pos++] = digits[--n];
	buf[pos++] = '/';
	strcpy(buf + pos, name);
}

/* A user namespace in which 0..65535 are 100000..165535, as a descriptor; -1 with errno. */
static int open_user_namespace(void)
{
	static char stack[16384] __attribute__((aligned(16)));
	char path[64];
	int fd = -1, saved;
	pid_t self = getpid();
	pid_t pid =
		clone(child_wait_forever, stack + sizeof(stack), CLONE_NEWUSER | SIGCHLD, &self);

	if (pid < 0)
		return -1;
	proc_path(path, pid, "uid_map");
	if (write_text(path, "0 100000 65536") == 0) {
		proc_path(path, pid, "gid_map");
		if (write_text(path, "0 100000 65536") == 0) {
			proc_path(path, pid, "ns/user");
			fd = open(path, O_RDONLY | O_CLOEXEC);
		}
	}
	saved = errno;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	errno = saved;
	return fd;
}

/* An overlay on an ID-mapped copy of the lower directory, as containerd's mounter makes it. */
static int try_idmap(const struct probe *probe)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP};
	int user_ns = open_user_namespace(), tree;

	if (user_ns < 0)
		return errno;
	tree = (int)syscall(SYS_open_tree, AT_FDCWD, probe->dirs[LOWER],
			    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0)
		return errno;
	attr.userns_fd = (unsigned int)user_ns;
	if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ||
	    syscall(SYS_move_mount, tree, "", AT_FDCWD, probe->dirs[MAPPED],
		    MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
	    mount("overlay", probe->dirs[MERGED], "overlay", 0, probe->idmap_options) < 0)
		return errno;
	return 0;
}

/*
 * Where there is no room for the directories, they are made on a tmpfs that hides the root from this process
 * alone; but the lower one is the root itself, so that its file system still shows whether it can be ID-mapped.
 */
static int stand_in(const struct probe *probe)
{
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, probe->root,
				OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (tree < 0 || mount("tmpfs", probe->root, "tmpfs", 0, "size=256k") < 0 ||
	    mkdir(probe->dir, 0700) < 0)
		return -1;
	for (size_t i = 0; i < N_PROBE_DIRS; i++)
		if (mkdir(probe->dirs[i], 0755) < 0)
			return -1;
	return (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, probe->dirs[LOWER],
			    MOVE_MOUNT_F_EMPTY_PATH);
}

static int try_mounts(const void *arg, void *result)
{
	const struct probe *probe = arg;
	struct finding *finding = result;

	if (probe->on_tmpfs && stand_in(probe) < 0)
		return errno;
	if (mount("overlay", probe->dirs[MERGED], "overlay", 0, probe->plain_options) < 0) {
		finding->overlay_errno = errno;
		return 0;
	}
	umount2(probe->dirs[MERGED], MNT_DETACH);
	finding->idmap_errno = try_idmap(probe);
	return 0;
}

/* --- in the daemon ------------------------------------------------------------------------------- */

/* Are we root of a user namespace rather than of the machine? The first one maps all ids to themselves. */
static bool in_user_namespace(void)
{
	CLEANUP(free_ptr) char *map = NULL;
	unsigned int inside, outside, count;
	struct err err = ERR_INIT;
	size_t size;

	if (fs_read_file(AT_FDCWD, "/proc/self/uid_map", 65536, &map, &size, &err) < 0)
		return false;
	return sscanf(map, "%u %u %u", &inside, &outside, &count) != 3 || inside != 0 ||
	       outside != 0 || count != 4294967295u;
}

static int check_entry_types(const struct probe *probe, struct err *err)
{
	CLEANUP(close_dir) DIR *dir = NULL;
	int fd = openat(probe->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;

	if (fd < 0)
		return err_sys(err, "probe the root");
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return err_sys(err, "probe the root");
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && entry->d_type != DT_DIR)
			return err_set(
				err, ERR_FAILED_PRECONDITION,
				"the file system does not tell the types of directory entries "
				"(d_type); xfs wants ftype=1");
	return 0;
}

static bool is_full(int errnum)
{
	return errnum == ENOSPC || errnum == EDQUOT;
}

static int write_paths(struct probe *probe, const char *root, struct err *err)
{
	int len = snprintf(probe->root, PATH_MAX, "%s", root);

	for (size_t i = 0; i < N_PROBE_DIRS && len < PATH_MAX; i++)
		len = snprintf(probe->dirs[i], PATH_MAX, "%s/" PROBE_DIR "/%s", root, dir_names[i]);
	if (len >= PATH_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "root '%s' is too long", root);
	/* The shortest of them. */
	(void)snprintf(probe->dir, PATH_MAX, "%s/" PROBE_DIR, root);
	return 0;
}

/* Return: 0; 1 when there is no room; or -1. */
static int make_probe_dirs(struct probe *probe, const char *root, struct err *err)
{
	if (write_paths(probe, root, err) < 0 ||
	    fs_open_dir(AT_FDCWD, root, &probe->root_fd, err) < 0 ||
	    fs_remove_tree(NULL, probe->root_fd, PROBE_DIR, err) < 0)
		return -1;
	if (mkdirat(probe->root_fd, PROBE_DIR, 0700) < 0)
		return is_full(errno) ? 1 : err_sys(err, "make '%s'", probe->dir);
	if (fs_open_dir(probe->root_fd, PROBE_DIR, &probe->dir_fd, err) < 0)
		return -1;
	for (size_t i = 0; i < N_PROBE_DIRS; i++)
		if (mkdirat(probe->dir_fd, dir_names[i], 0755) < 0)
			return is_full(errno) ? 1 : err_sys(err, "make '%s'", probe->dirs[i]);
	return 0;
}

static void write_options(struct probe *probe, const char *extra)
{
	snprintf(probe->plain_options, sizeof(probe->plain_options),
		 "lowerdir=%s,upperdir=%s,workdir=%s%s", probe->dirs[LOWER], probe->dirs[UPPER],
		 probe->dirs[WORK], extra);
	snprintf(probe->idmap_options, sizeof(probe->idmap_options),
		 "lowerdir=%s,upperdir=%s,workdir=%s%s", probe->dirs[MAPPED], probe->dirs[UPPER],
		 probe->dirs[WORK], extra);
}

/* Return: 0; 1 when there is no room; or -1. */
static int probe_mounts(struct probe *probe, struct kernel_abilities *abilities, struct err *err)
{
	struct finding finding = {0};
	int untried, r;

	write_options(probe, abilities->user_xattr ? ",userxattr" : "");
	r = kernel_child_run(try_mounts, probe, &finding, sizeof(finding), &untried, err);
	if (r < 0)
		return -1;
	if (r > 0) {
		log_event(LOG_WARN, "overlay mounts could not be tried: not permitted here",
			  LOG_STR("error", strerror(untried)));
		return 0;
	}
	if (is_full(finding.overlay_errno) && !probe->on_tmpfs)
		return 1;
	if (finding.overlay_errno) {
		err_sysno(err, finding.overlay_errno, "mount an overlay on '%s'", probe->root);
		/* Whatever errno says of the mount, to the operator this is a place that will not do. */
		err->code = ERR_FAILED_PRECONDITION;
		return -1;
	}
	abilities->idmap = !finding.idmap_errno;
	return 0;
}

/* Return: as probe_mounts(). */
static int probe_root(struct probe *probe, const char *root, struct kernel_abilities *abilities,
		      struct err *err)
{
	struct statfs fs;
	int result = make_probe_dirs(probe, root, err);

	if (result < 0)
		return -1;
	abilities->user_xattr = in_user_namespace() && fstatfs(probe->root_fd, &fs) == 0 &&
				(unsigned long)fs.f_type != TMPFS_MAGIC;
	if (result > 0)
		return 1;
	return check_entry_types(probe, err) < 0 ? -1 : probe_mounts(probe, abilities, err);
}

int kernel_probe(const char *root, struct kernel_abilities *ret_abilities, struct err *err)
{
	struct kernel_abilities abilities = {0};
	CLEANUP(free_ptr) struct probe *probe = calloc(1, sizeof(*probe));
	struct err cleanup_err = ERR_INIT;
	int result;

	if (!probe)
		return err_sys(err, "probe overlayfs");
	probe->root_fd = probe->dir_fd = -1;
	result = probe_root(probe, root, &abilities, err);
	/* Who could not start on a full disk could not be asked to remove anything from it. */
	if (result > 0) {
		log_event(LOG_WARN, "the disk is full: overlay mounts are tried on a tmpfs",
			  LOG_STR("root", root));
		probe->on_tmpfs = true;
		result = probe_mounts(probe, &abilities, err);
	}
	/* After the mount: trying it is what loads the module. */
	abilities.index_option = access(KERNEL_INDEX_PARAMETER, F_OK) == 0;

	if (probe->root_fd >= 0 &&
	    fs_remove_tree(NULL, probe->root_fd, PROBE_DIR, &cleanup_err) < 0)
		log_event(LOG_WARN, "'" PROBE_DIR "' stays below the root", LOG_ERR(&cleanup_err));
	close_fd(&probe->dir_fd);
	close_fd(&probe->root_fd);
	if (result == 0)
		*ret_abilities = abilities;
	return result;
}
