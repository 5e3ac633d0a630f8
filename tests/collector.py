#!/usr/bin/env python3
"""A collector for tests: takes spans by OTLP over HTTP (protobuf) and shows a trace as a tree. It keeps all that it gets, in memory.

  tests/collector.py IP:PORT

POST /v1/traces takes spans; GET /traces/ID[?spans=N] shows a trace, or answers 404 as long as it has fewer than N spans (1).
"""

import http.server
import sys
import threading
import urllib.parse

KINDS = {1: "internal", 2: "server", 3: "client"}

lock = threading.Lock()
traces = {}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Number and value of each field of a protobuf message; the value is an int or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(data, at)
        else:
            if wire == 2:
                length, at = varint(data, at)
            else:
                length = {1: 8, 5: 4}[wire]
            value, at = data[at : at + length], at + length
            if len(value) != length:
                raise ValueError("the message ends too early")
            if wire != 2:
                value = int.from_bytes(value, "little")
        yield number, value


def every(data, *path):
    """The messages that are reached by these numbers of fields."""
    for number, value in fields(data):
        if number == path[0]:
            if path[1:]:
                yield from every(value, *path[1:])
            else:
                yield value


def attribute(data):
    """Name and text of a KeyValue."""
    pair = dict(fields(data))
    for number, value in fields(pair.get(2, b"")):
        return pair[1].decode(), value.decode() if number == 1 else str(value)
    return pair[1].decode(), ""


def take(body):
    """Keeps the spans of an ExportTraceServiceRequest."""
    for data in every(body, 1, 2, 2):
        span = dict(fields(data))
        kept = {
            "id": span[2],
            "parent": span.get(4, b""),
            "name": span[5].decode(),
            "kind": KINDS.get(span.get(6), "?"),
            "start": span[7],
            "end": span[8],
            "attributes": sorted(attribute(each) for each in every(data, 9)),
        }
        with lock:
            traces.setdefault(span[1].hex(), []).append(kept)


def show(spans):
    """The lines of a trace: each span below the one that it is within."""
    ids = {span["id"] for span in spans}

    def lines(children, indent):
        for span in sorted(children, key=lambda span: span["start"]):
            took = (span["end"] - span["start"]) / 1e6
            words = " ".join(f"{name}={value}" for name, value in span["attributes"])
            yield f"{indent}{span['name']} ({span['kind']}) {took:.2f} ms  {words}\n"
            yield from lines((each for each in spans if each["parent"] == span["id"]), indent + "  ")

    return "".join(lines((span for span in spans if span["parent"] not in ids), ""))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/traces":
            return self.answer(404, "there is POST /v1/traces\n")
        try:
            take(body)
        except (ValueError, KeyError, IndexError) as error:
            print(f"these are no spans: {error!r}", file=sys.stderr)
            return self.answer(400, "these are no spans\n")
        self.answer(200, "", "application/x-protobuf")

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        wanted = int(urllib.parse.parse_qs(url.query).get("spans", ["1"])[0])
        with lock:
            spans = list(traces.get(url.path.removeprefix("/traces/"), []))
        if len(spans) < wanted:
            return self.answer(404, f"{len(spans)} spans of it are here\n")
        self.answer(200, show(spans))

    def answer(self, status, text, kind="text/plain; charset=utf-8"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    host, port = sys.argv[1].rsplit(":", 1)
    http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


main()
