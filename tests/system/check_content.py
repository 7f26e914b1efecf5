#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check that the files below a content store's root are the blobs that its database names, byte for byte.

usage: check_content.py ROOT

lighter-content must not be running. Prints what does not match; exits with 1 if something does not.
"""
import hashlib
import os
import sqlite3
import sys

ALGORITHMS = {33: "sha256", 65: "sha512"}


def digest_of(path, algorithm):
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def main(arguments):
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit(__doc__)
    root = arguments[0]
    connection = sqlite3.connect(os.path.join(root, "metadata.db"))
    named = {}
    for digest, size in connection.execute("SELECT digest, size_bytes FROM blobs"):
        named[ALGORITHMS[len(digest)], digest[1:].hex()] = size
    connection.close()
    there = set()
    for algorithm in os.listdir(os.path.join(root, "blobs")):
        for name in os.listdir(os.path.join(root, "blobs", algorithm)):
            there.add((algorithm, name))

    wrong = 0
    for blob in sorted(set(named) - there):
        print("in the database, without a file: %s:%s" % blob)
        wrong += 1
    for blob in sorted(there - set(named)):
        print("a file that the database does not name: %s:%s" % blob)
        wrong += 1
    for blob in sorted(there & set(named)):
        path = os.path.join(root, "blobs", *blob)
        if os.path.getsize(path) != named[blob]:
            print("not of the size that the database says: %s:%s" % blob)
            wrong += 1
        if digest_of(path, blob[0]) != blob[1]:
            print("bytes that are not what their name says: %s:%s" % blob)
            wrong += 1
    ingests = os.listdir(os.path.join(root, "ingests"))
    for name in sorted(ingests):
        if not name.endswith(".ref") and name + ".ref" not in ingests:
            print("bytes without a reference: ingests/%s" % name)
            wrong += 1
    print("%d blobs, %d files of ingests" % (len(named), len(ingests)))
    return 1 if wrong else 0


sys.exit(main(sys.argv[1:]))
