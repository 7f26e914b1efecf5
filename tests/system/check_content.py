#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check that the files below a content store's root are the blobs that its database names, byte for byte, and that
its catalog says what the documents among them say.

usage: check_content.py ROOT

lighter-content must not be running. Prints what does not match; exits with 1 if something does not.
"""
import hashlib
import json
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


def text_of(digest):
    return "%s:%s" % (ALGORITHMS[len(digest)], digest[1:].hex())


def described(descriptor):
    annotations = descriptor.get("annotations")
    return (
        descriptor["digest"],
        descriptor["mediaType"],
        descriptor["size"],
        json.dumps(annotations, sort_keys=True) if annotations else None,
    )


def said_by(data):
    """What a document says: descriptors by position, and pairs of diff ID and chain ID."""
    try:
        document = json.loads(data)
    except ValueError:
        return {}, []
    if document.get("schemaVersion") == 1:
        return {}, []
    said, chains = {}, []
    if "manifests" in document:
        said = {i: described(d) for i, d in enumerate(document["manifests"])}
    elif "layers" in document:
        said = {i: described(d) for i, d in enumerate(document["layers"])}
        said[-1] = described(document["config"])
    elif "rootfs" in document:
        for diff_id in document["rootfs"].get("diff_ids") or []:
            chain_id = diff_id
            if chains:
                both = "%s %s" % (chains[-1][1], diff_id)
                chain_id = "sha256:" + hashlib.sha256(both.encode()).hexdigest()
            chains.append((diff_id, chain_id))
    return said, chains


def catalogued(connection, document):
    said = {}
    for position, digest, media_type, size, annotations in connection.execute(
        "SELECT position, digest, media_type, size_bytes, annotations FROM descriptors WHERE document = ?", (document,)
    ):
        if annotations:
            annotations = json.dumps(json.loads(annotations), sort_keys=True)
        said[position] = (text_of(digest), media_type, size, annotations)
    chains = connection.execute("SELECT diff_id, chain_id FROM chains WHERE document = ? ORDER BY position", (document,))
    return said, [(text_of(diff_id), text_of(chain_id)) for diff_id, chain_id in chains]


def check_catalog(root, blobs):
    """Returns how many documents are wrong. Those of other kinds than images are made of say nothing."""
    wrong = 0
    connection = sqlite3.connect(os.path.join(root, "catalog.db"))
    (complete,) = connection.execute("SELECT complete FROM state").fetchone()
    documents = {text_of(digest): number for number, digest in connection.execute("SELECT id, digest FROM documents")}
    for name in sorted(set(documents) - blobs):
        print("in the catalog, and no blob: %s" % name)
        wrong += 1
    for name in sorted(blobs):
        with open(os.path.join(root, "blobs", *name.split(":")), "rb") as file:
            if file.read(1) != b"{":
                continue
            file.seek(0)
            said = said_by(file.read())
        if name in documents:
            if catalogued(connection, documents[name]) != said:
                print("the catalog says something else: %s" % name)
                wrong += 1
        elif complete:
            print("not in the catalog: %s" % name)
            wrong += 1
    connection.close()
    print("%d documents in the catalog%s" % (len(documents), "" if complete else ", which is not complete"))
    return wrong


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
    if not wrong:
        wrong += check_catalog(root, {"%s:%s" % blob for blob in there})
    return 1 if wrong else 0


sys.exit(main(sys.argv[1:]))
