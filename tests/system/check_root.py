#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check that the directories below a plugin's root are those that its database names.

usage: check_root.py ROOT

The plugin must not be running. Prints what does not match; exits with 1 if something does not.
"""
import os
import sqlite3
import sys


def main(arguments):
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit(__doc__)
    root = arguments[0]
    database = os.path.join(root, "metadata.db")
    with open(database, "rb") as file:
        if not file.read(6) == b"SQLite":
            print("%s is not ours, nothing to check" % database)
            return 0
    connection = sqlite3.connect(database)
    named = {str(row[0]) for row in connection.execute("SELECT id FROM snapshots")}
    connection.close()
    matches = True
    for part in ("snapshots", "work"):
        there = set(os.listdir(os.path.join(root, part)))
        for name in sorted(named - there):
            print("in the database, without a directory: %s/%s" % (part, name))
        for name in sorted(there - named):
            print("a directory that the database does not name: %s/%s" % (part, name))
        matches = matches and named == there
    print("%d snapshots" % len(named))
    return 0 if matches else 1


sys.exit(main(sys.argv[1:]))
