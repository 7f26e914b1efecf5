/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/mount_opts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

/* 128 layers of long paths; more is refused by the kernel anyway. */
#define LOWERDIR_MAX_BYTES (1u << 20)

/* Is the option @name configured, with a value or without? */
static bool is_configured(const struct conf_list *options, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < options->n; i++) {
		const char *option = options->items[i];

		if (strncmp(option, name, len) == 0 && (option[len] == '\0' || option[len] == '='))
			return true;
	}
	return false;
}

/* Options are joined by commas, which only a quoted value can hold (SELinux has such). */
static bool is_one_option(const char *option)
{
	bool quoted = false;

	for (; *option; option++) {
		if (*option == '"')
			quoted = !quoted;
		else if (*option == ',' && !quoted)
			return false;
	}
	return !quoted;
}

int mount_opts_check(const struct overlay_conf *conf, struct err *err)
{
	/* The first are ours; the others would make it another mount than the one that we mean. */
	static const char *const ours[] = {"lowerdir", "upperdir", "workdir", "uidmap", "gidmap",
					   "bind",     "rbind",    "remount", "loop"};
	const struct conf_list *options = &conf->mount_options;

	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		if (is_configured(options, ours[i]))
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "overlay.mount_options: '%s' is not yours to set", ours[i]);
	for (size_t i = 0; i < options->n; i++)
		if (options->items[i][0] == '\0' || !is_one_option(options->items[i]))
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "overlay.mount_options: '%s' is not one option: each is an "
				       "element of the list",
				       options->items[i]);
	if (!options->n)
		return 0;
	return kernel_try_options(options, !is_configured(options, "index"), err);
}

int mount_opts_init(struct mount_opts *opts, const struct overlay_conf *conf,
		    const struct kernel_abilities *kernel, struct err *err)
{
	*opts = (struct mount_opts){.rebase = conf->rebase};
	opts->remap_ids = strcmp(conf->remap_ids, "always") == 0 ||
			  (strcmp(conf->remap_ids, "auto") == 0 && kernel->idmap);

	opts->common = calloc(conf->mount_options.n + 2, sizeof(*opts->common));
	if (!opts->common)
		return err_sysno(err, ENOMEM, "mount options");
	for (size_t i = 0; i < conf->mount_options.n; i++)
		opts->common[opts->n_common++] = conf->mount_options.items[i];
	if (kernel->user_xattr && !is_configured(&conf->mount_options, "userxattr"))
		opts->common[opts->n_common++] = "userxattr";
	if (kernel->index_option && !is_configured(&conf->mount_options, "index"))
		opts->common[opts->n_common++] = "index=off";
	return 0;
}

void mount_opts_done(struct mount_opts *opts)
{
	free(opts->common);
	*opts = (struct mount_opts){0};
}

static int add_path(struct mount *mount, struct ctx *ctx, const char *name, const char *path,
		    struct err *err)
{
	const char *option = path ? arena_printf(ctx->arena, "%s=%s", name, path) : NULL;

	if (!option)
		return ctx_no_memory(err);
	return mount_add_option(mount, ctx->arena, option, err);
}

static int add_lowerdirs(struct mount *mount, const struct layers *layers, struct ctx *ctx,
			 const struct mount_case *what, struct err *err)
{
	struct str lower;
	int result;

	if (!what->n_parents)
		return add_path(mount, ctx, "lowerdir", layers_empty_path(layers), err);
	str_init(&lower, LOWERDIR_MAX_BYTES);
	str_add(&lower, "lowerdir=");
	for (size_t i = 0; i < what->n_parents; i++) {
		const char *path = layers_fs_path(layers, ctx->arena, what->parents[i]);

		if (!path)
			lower.failed = true;
		else
			str_printf(&lower, "%s%s", i ? ":" : "", path);
	}
	if (lower.failed)
		result = ctx_no_memory(err);
	else
		result = mount_add_option(mount, ctx->arena, lower.text, err);
	str_done(&lower);
	return result;
}

static int add_idmap(struct mount *mount, struct ctx *ctx, const struct mount_case *what,
		     struct err *err)
{
	const char *uids = strmap_get(what->labels, SNAPSHOT_LABEL_UID_MAPPING);
	const char *gids = strmap_get(what->labels, SNAPSHOT_LABEL_GID_MAPPING);

	if (!uids || !gids)
		return 0;
	if (add_path(mount, ctx, "uidmap", uids, err) < 0)
		return -1;
	return add_path(mount, ctx, "gidmap", gids, err);
}

static int bind_mount(struct mount *mount, struct ctx *ctx, const char *source, const char *mode,
		      struct err *err)
{
	if (!source)
		return ctx_no_memory(err);
	mount->type = "bind";
	mount->source = source;
	if (mount_add_option(mount, ctx->arena, mode, err) < 0)
		return -1;
	return mount_add_option(mount, ctx->arena, "rbind", err);
}

static int overlay_mount(struct mount *mount, const struct mount_opts *opts,
			 const struct layers *layers, struct ctx *ctx,
			 const struct mount_case *what, struct err *err)
{
	mount->type = "overlay";
	mount->source = "overlay";
	if (what->kind == SNAPSHOT_ACTIVE &&
	    (add_path(mount, ctx, "workdir", layers_work_path(layers, ctx->arena, what->id), err) <
		     0 ||
	     add_path(mount, ctx, "upperdir", layers_fs_path(layers, ctx->arena, what->id), err) <
		     0))
		return -1;
	if (add_lowerdirs(mount, layers, ctx, what, err) < 0)
		return -1;
	for (size_t i = 0; i < opts->n_common; i++)
		if (mount_add_option(mount, ctx->arena, opts->common[i], err) < 0)
			return -1;
	return 0;
}

/*
 * A layer that is unpacked before its parents are there, to be put on them by Commit. In a bind mount the
 * differ would leave its whiteouts as plain files, since it knows only the snapshotter *named* "overlayfs"
 * to want them converted; an overlay mount on an empty directory takes them as they are meant.
 */
static bool is_rebased_extraction(const struct mount_opts *opts, const struct mount_case *what)
{
	return opts->rebase && what->kind == SNAPSHOT_ACTIVE && !what->n_parents &&
	       strmap_get(what->labels, SNAPSHOT_LABEL_PARENT_CHAIN_ID);
}

int mount_opts_mounts(const struct mount_opts *opts, const struct layers *layers, struct ctx *ctx,
		      const struct mount_case *what, struct mounts *ret_mounts, struct err *err)
{
	struct mount *mount = arena_zalloc(ctx->arena, sizeof(*mount));
	int result;

	if (!mount)
		return ctx_no_memory(err);
	mount->target = "";
	if (what->remapped && add_idmap(mount, ctx, what, err) < 0)
		return -1;

	if (is_rebased_extraction(opts, what))
		result = overlay_mount(mount, opts, layers, ctx, what, err);
	else if (!what->n_parents)
		result = bind_mount(mount, ctx, layers_fs_path(layers, ctx->arena, what->id),
				    what->kind == SNAPSHOT_VIEW ? "ro" : "rw", err);
	else if (what->kind == SNAPSHOT_VIEW && what->n_parents == 1)
		result =
			bind_mount(mount, ctx, layers_fs_path(layers, ctx->arena, what->parents[0]),
				   "ro", err);
	else
		result = overlay_mount(mount, opts, layers, ctx, what, err);
	if (result < 0)
		return -1;
	ret_mounts->items = mount;
	ret_mounts->n = 1;
	return 0;
}
