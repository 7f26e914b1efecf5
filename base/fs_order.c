/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fs.h"

/* Has the ext4 on @dev a journal? jbd2 shows each of its journals as /proc/fs/jbd2/<disk>-<inode>. */
static bool has_ext4_journal(dev_t dev)
{
	char link[64], target[512];
	const char *disk;
	ssize_t len;
	CLEANUP(close_dir) DIR *dir = NULL;
	struct dirent *entry;

	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	len = readlink(link, target, sizeof(target) - 1);
	dir = opendir("/proc/fs/jbd2");
	if (len < 0 || !dir)
		return false;
	target[len] = '\0';
	disk = strrchr(target, '/');
	disk = disk ? disk + 1 : target;
	while ((entry = readdir(dir))) {
		size_t n = strlen(disk);

		if (strncmp(entry->d_name, disk, n) == 0 && entry->d_name[n] == '-')
			return true;
	}
	return false;
}

/*
 * Sources: kernel, Documentation/filesystems/ext4/journal.rst; xfs-delayed-logging-design.rst.
 */
bool fs_is_ordered(int fd)
{
	struct statfs fs;
	struct stat st;

	if (fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0)
		return false;
	if ((unsigned long)fs.f_type == XFS_SUPER_MAGIC)
		return true;
	return (unsigned long)fs.f_type == EXT4_SUPER_MAGIC && has_ext4_journal(st.st_dev);
}
