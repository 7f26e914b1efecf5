/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "snapshotters/overlay/kernel_child.h"

/* The kernel takes one page of options. */
#define OPTIONS_MAX_BYTES 4096
/* Hidden below a tmpfs in the child's namespace, and there on every machine. */
#define TRIAL_DIR         "/tmp"
#define TRIAL_LOWER       TRIAL_DIR "/lower"
#define TRIAL_MERGED      TRIAL_DIR "/merged"
/* An upper directory remembers the options that it was mounted with: each mount has its own. */
#define TRIAL_PLAIN       TRIAL_DIR "/plain"
#define TRIAL_PLAIN_WORK  TRIAL_DIR "/plain-work"
#define TRIAL_UPPER       TRIAL_DIR "/upper"
#define TRIAL_WORK        TRIAL_DIR "/work"

/**
 * struct trial - what the child is to mount
 * @options: the data of mount(2); @index_options: the same, for a kernel that knows "index="
 */
struct trial {
	unsigned long flags;
	const char *options;
	const char *index_options;
};

/* Those that containerd's mounter turns into flags (mount_linux.go, parseMountOptions()); the rest is data. */
static const struct {
	const char *name;
	unsigned long flag;
	bool clears;
} mount_flags[] = {
	{"async", MS_SYNCHRONOUS, true},
	{"atime", MS_NOATIME, true},
	{"dev", MS_NODEV, true},
	{"diratime", MS_NODIRATIME, true},
	{"dirsync", MS_DIRSYNC, false},
	{"exec", MS_NOEXEC, true},
	{"mand", MS_MANDLOCK, false},
	{"noatime", MS_NOATIME, false},
	{"nodev", MS_NODEV, false},
	{"nodiratime", MS_NODIRATIME, false},
	{"noexec", MS_NOEXEC, false},
	{"nomand", MS_MANDLOCK, true},
	{"norelatime", MS_RELATIME, true},
	{"nostrictatime", MS_STRICTATIME, true},
	{"nosuid", MS_NOSUID, false},
	{"relatime", MS_RELATIME, false},
	{"ro", MS_RDONLY, false},
	{"rw", MS_RDONLY, true},
	{"strictatime", MS_STRICTATIME, false},
	{"suid", MS_NOSUID, true},
	{"sync", MS_SYNCHRONOUS, false},
};

static bool take_flag(const char *option, unsigned long *flags)
{
	for (size_t i = 0; i < ARRAY_LEN(mount_flags); i++) {
		if (strcmp(option, mount_flags[i].name) != 0)
			continue;
		if (mount_flags[i].clears)
			*flags &= ~mount_flags[i].flag;
		else
			*flags |= mount_flags[i].flag;
		return true;
	}
	return false;
}

/* --- in the child -------------------------------------------------------------------------------- */

static int make_dirs(void)
{
	static const char *const dirs[] = {TRIAL_LOWER,      TRIAL_MERGED, TRIAL_PLAIN,
					   TRIAL_PLAIN_WORK, TRIAL_UPPER,  TRIAL_WORK};

	for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
		if (mkdir(dirs[i], 0755) < 0)
			return -1;
	return 0;
}

static int try_options(const void *arg, void *result)
{
	static const char plain[] =
		"lowerdir=" TRIAL_LOWER ",upperdir=" TRIAL_PLAIN ",workdir=" TRIAL_PLAIN_WORK;
	const struct trial *trial = arg;
	int *refused = result;
	const char *options;

	if (mount("tmpfs", TRIAL_DIR, "tmpfs", 0, "mode=0700") < 0 || make_dirs() < 0 ||
	    mount("overlay", TRIAL_MERGED, "overlay", 0, plain) < 0)
		return errno;
	umount2(TRIAL_MERGED, MNT_DETACH);
	/* Only now, since the first mount loads the module. */
	options = access(KERNEL_INDEX_PARAMETER, F_OK) == 0 ? trial->index_options : trial->options;
	if (mount("overlay", TRIAL_MERGED, "overlay", trial->flags, options) < 0)
		*refused = errno;
	return 0;
}

/* --- in the daemon ------------------------------------------------------------------------------- */

static int run_trial(const struct trial *trial, const char *shown, struct err *err)
{
	int refused = 0, untried;
	int r = kernel_child_run(try_options, trial, &refused, sizeof(refused), &untried, err);

	if (r < 0)
		return -1;
	if (r > 0)
		log_event(LOG_DEBUG, "mount options could not be tried here",
			  LOG_STR("error", strerror(untried)));
	if (!refused)
		return 0;
	err_sysno(err, refused,
		  "overlay.mount_options: the kernel refuses to mount an overlay with '%s'", shown);
	err->code = ERR_INVALID_ARGUMENT;
	return -1;
}

int kernel_try_options(const struct conf_list *options, bool index_off, struct err *err)
{
	struct trial trial = {0};
	struct str data, with_index, shown;
	int result;

	str_init(&data, OPTIONS_MAX_BYTES);
	str_init(&with_index, OPTIONS_MAX_BYTES);
	str_init(&shown, OPTIONS_MAX_BYTES);
	str_add(&data, "lowerdir=" TRIAL_LOWER ",upperdir=" TRIAL_UPPER ",workdir=" TRIAL_WORK);
	for (size_t i = 0; i < options->n; i++) {
		str_printf(&shown, "%s%s", i ? "," : "", options->items[i]);
		if (!take_flag(options->items[i], &trial.flags))
			str_printf(&data, ",%s", options->items[i]);
	}
	str_printf(&with_index, "%s%s", data.text, index_off ? ",index=off" : "");
	if (data.failed || with_index.failed || shown.failed) {
		result = err_set(err, ERR_INVALID_ARGUMENT, "overlay.mount_options are too long");
	} else {
		trial.options = data.text;
		trial.index_options = with_index.text;
		result = run_trial(&trial, shown.text, err);
	}
	str_done(&shown);
	str_done(&with_index);
	str_done(&data);
	return result;
}
