#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A registry that stops in the middle of large blobs, in front of one that does not.

usage: stalling_registry.py UPSTREAM GATE

Passes requests to HOST:PORT UPSTREAM. Of what is longer than 4 MiB it sends one half, then waits until the file GATE
exists. Prints "listening on HOST:PORT", then a line for each GET: what is asked for, and the range.
"""
import http.client
import http.server
import os
import sys
import time

LARGE_BYTES = 4 << 20
PIECE_BYTES = 64 << 10


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        print("GET %s %s" % (self.path, self.headers.get("Range", "-")), flush=True)
        self.pass_on()

    def do_HEAD(self):
        self.pass_on()

    def pass_on(self):
        upstream = http.client.HTTPConnection(self.server.upstream)
        headers = {name: self.headers[name] for name in ("Accept", "Range") if name in self.headers}
        upstream.request(self.command, self.path, headers=headers)
        answer = upstream.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("date", "server", "connection", "transfer-encoding"):
                self.send_header(name, value)
        length = int(answer.headers.get("Content-Length") or 0)
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.send_body(answer, length)
            except ConnectionError:
                # whoever asked has been killed: that is what this is for
                self.close_connection = True
        upstream.close()

    def send_body(self, answer, length):
        sent = 0
        while sent < length:
            if length > LARGE_BYTES and sent >= length // 2:
                while not os.path.exists(self.server.gate):
                    time.sleep(0.02)
            piece = answer.read(min(PIECE_BYTES, length - sent))
            if not piece:
                raise ConnectionError("the upstream has ended early")
            self.wfile.write(piece)
            sent += len(piece)

    def log_message(self, *_):
        pass


def main(arguments):
    if len(arguments) != 2 or arguments[0].startswith("-"):
        sys.exit(__doc__)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.upstream, server.gate = arguments
    print("listening on 127.0.0.1:%d" % server.server_port, flush=True)
    server.serve_forever()


main(sys.argv[1:])
