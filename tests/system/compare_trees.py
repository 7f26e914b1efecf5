#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compare two directory trees, attribute by attribute.

usage: compare_trees.py [--whole-seconds] ONE OTHER

Compared are, for every name: type, mode, owner, modification time (to the nanosecond, or to the second where
one tree has been through an archive of whole seconds), size, device number,
link target, all extended attributes, the content (as sha256), and which names are links to one inode.
Not compared: inode numbers, change and access times, the size of a directory, and the modification
times of the topmost one and of whiteouts, which containerd leaves at the time of unpacking.
Prints every difference; exits with 1 if there is one.
"""
import hashlib
import os
import stat
import sys


def xattrs(path):
    found = {}
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        found[name] = os.getxattr(path, name, follow_symlinks=False).hex()
    return found


def describe(path, st):
    kind = stat.S_IFMT(st.st_mode)
    entry = {
        "type": {
            stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char",
            stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
        }[kind],
        "mode": oct(stat.S_IMODE(st.st_mode)),
        "owner": "%d:%d" % (st.st_uid, st.st_gid),
        "mtime": st.st_mtime_ns,
        "xattrs": xattrs(path),
    }
    if kind == stat.S_IFCHR and st.st_rdev == 0:
        entry["type"] = "whiteout"
        entry["mtime"] = 0
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        entry["device"] = "%d:%d" % (os.major(st.st_rdev), os.minor(st.st_rdev))
    if kind == stat.S_IFLNK:
        entry["target"] = os.readlink(path)
    if kind == stat.S_IFREG:
        entry["size"] = st.st_size
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        entry["content"] = digest.hexdigest()
    if kind != stat.S_IFDIR:
        entry["links"] = st.st_nlink
    return entry


def read_tree(root):
    root = os.fsencode(root)
    tree, by_inode = {}, {}

    def visit(path, name):
        st = os.lstat(path)
        tree[name] = describe(path, st)
        if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
            by_inode.setdefault((st.st_dev, st.st_ino), []).append(name)
        if stat.S_ISDIR(st.st_mode):
            for child in sorted(os.listdir(path)):
                visit(os.path.join(path, child), os.path.join(name, child))

    visit(root, b".")
    for names in by_inode.values():
        for name in names:
            tree[name]["same inode as"] = [os.fsdecode(n) for n in names]
    return tree


def main(arguments):
    unit = 1
    if arguments[:1] == ["--whole-seconds"]:
        unit = 1000000000
        arguments = arguments[1:]
    if len(arguments) != 2:
        sys.exit(__doc__)
    one, other = read_tree(arguments[0]), read_tree(arguments[1])
    one[b"."]["mtime"] = other[b"."]["mtime"] = 0
    for entry in list(one.values()) + list(other.values()):
        entry["mtime"] //= unit
    differences = 0
    for name in sorted(one.keys() | other.keys()):
        shown = os.fsdecode(name).encode("unicode_escape").decode()
        if name not in one or name not in other:
            print("%s: only in %s" % (shown, arguments[0 if name in one else 1]))
            differences += 1
            continue
        for key in sorted(one[name].keys() | other[name].keys()):
            if one[name].get(key) != other[name].get(key):
                print("%s: %s: %s | %s" % (shown, key, one[name].get(key), other[name].get(key)))
                differences += 1
    print("%d names compared, %d differences" % (len(one), differences))
    return 1 if differences else 0


sys.exit(main(sys.argv[1:]))
