"""Google Cloud Storage in memory, as far as a replicator uses it, with exact preconditions.

No emulator that can be installed honours `ifGenerationMatch` on every way of uploading, and a
conditional create is what these tests are about. Followed: the pages "Objects: insert", "Objects:
list", "Performing resumable uploads", "XML API multipart uploads" and "Batch requests" of Google's
documentation. Credentials are not checked. Argument: the port.

A precondition is checked when an upload begins and again when the object would appear; one lock
makes the second look and the appearance one step.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from datetime import datetime, timezone
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

LOCK = threading.RLock()
BUCKETS = {}   # name -> {key: Stored}
SESSIONS = {}  # id -> Session of a resumable upload
UPLOADS = {}   # id -> {part number: bytes} of a multipart upload
COUNTER = [1_000_000]


class Failure(Exception):
    """An answer that is an error: status and reason."""


class Stored:
    def __init__(self, bucket, key, body, meta):
        COUNTER[0] += 1
        self.bucket, self.key, self.body, self.meta = bucket, key, body, meta
        self.generation = str(COUNTER[0])
        self.updated = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")

    def resource(self):
        md5 = hashlib.md5(self.body).digest()
        meta = {k: v for k, v in self.meta.items() if k in ("contentType", "storageClass", "metadata", "cacheControl")}
        return {"kind": "storage#object", "bucket": self.bucket, "name": self.key, "generation": self.generation,
                "metageneration": "1", "size": str(len(self.body)), "md5Hash": base64.b64encode(md5).decode(),
                "etag": md5.hex(), "updated": self.updated, "timeCreated": self.updated,
                "contentType": "application/octet-stream", "storageClass": "STANDARD", **meta}


class Session:
    def __init__(self, bucket, key, query, meta):
        self.bucket, self.key, self.query, self.meta = bucket, key, query, meta
        self.body, self.done = b"", None


def bucket_of(name):
    if name not in BUCKETS:
        raise Failure(404, "notFound")
    return BUCKETS[name]


def object_of(bucket, key):
    found = bucket_of(bucket).get(key)
    if found is None:
        raise Failure(404, "notFound")
    return found


def check(bucket, key, query):
    """Generation 0 stands for an object that does not exist."""
    found = bucket_of(bucket).get(key)
    generation = found.generation if found else "0"
    if query.get("ifGenerationMatch", generation) != generation:
        raise Failure(412, "conditionNotMet")
    if query.get("ifGenerationNotMatch") == generation:
        raise Failure(412 if query.get("writing") else 304, "conditionNotMet")


def store(bucket, key, body, meta, query):
    with LOCK:
        check(bucket, key, {**query, "writing": "1"})
        BUCKETS[bucket][key] = Stored(bucket, key, body, meta)
        return BUCKETS[bucket][key]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, status, body=b"", headers=()):
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body).encode(), [("Content-Type", "application/json"), *headers]
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def handle_request(self):
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        body = self.read_body()
        try:
            with LOCK:
                self.route(url.path, query, body)
        except Failure as failure:
            status, reason = failure.args
            error = {"code": status, "message": reason, "errors": [{"domain": "global", "reason": reason, "message": reason}]}
            self.answer(status, {"error": error} if status != 304 else b"")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def route(self, path, query, body):
        if path == "/":
            return self.answer(200, {})
        if path == "/storage/v1/b" and self.command == "POST":
            name = json.loads(body)["name"]
            if name in BUCKETS:
                raise Failure(409, "conflict")
            BUCKETS[name] = {}
            return self.answer(200, {"kind": "storage#bucket", "name": name})
        if path == "/batch/storage/v1":
            return self.batch(body)
        if found := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path):
            return self.upload(unquote(found[1]), query, body)
        if found := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            return self.listing(unquote(found[1]), query)
        if found := re.fullmatch(r"/storage/v1/b/([^/]+)/o/([^/]+)", path):
            return self.json_object(unquote(found[1]), unquote(found[2]), query)
        if found := re.fullmatch(r"/([^/]+)/(.+)", path):
            return self.xml_object(unquote(found[1]), unquote(found[2]), query, body)
        raise Failure(404, "notFound")

    def json_object(self, bucket, key, query):
        found = object_of(bucket, key)
        check(bucket, key, {**query, **({"writing": "1"} if self.command == "DELETE" else {})})
        if self.command == "DELETE":
            del BUCKETS[bucket][key]
            return self.answer(204)
        if query.get("alt") != "media":
            return self.answer(200, found.resource())
        self.content(found)

    def content(self, found):
        headers = [("Content-Type", "application/octet-stream"), ("ETag", found.resource()["etag"]),
                   ("x-goog-generation", found.generation)]
        size = len(found.body)
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not (asked[1] or asked[2]):
            return self.answer(200, found.body, headers)
        first = int(asked[1]) if asked[1] else max(size - int(asked[2]), 0)
        last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if first > last:
            raise Failure(416, "requestedRangeNotSatisfiable")
        headers.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        self.answer(206, found.body[first:last + 1], headers)

    def listing(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start = max(query.get("startOffset", ""), query.get("pageToken", ""))
        most = min(int(query.get("maxResults", 1000)), 1000)
        items, prefixes, answer = [], [], {"kind": "storage#objects"}
        for key in sorted(key for key in bucket_of(bucket) if key.startswith(prefix) and key >= start):
            rest = key[len(prefix):]
            folder = prefix + rest.split(delimiter)[0] + delimiter if delimiter and delimiter in rest else None
            if folder in prefixes:
                continue
            if len(items) + len(prefixes) == most:
                answer["nextPageToken"] = key
                break
            prefixes.append(folder) if folder else items.append(BUCKETS[bucket][key].resource())
        self.answer(200, {**answer, **({"items": items} if items else {}), **({"prefixes": prefixes} if prefixes else {})})

    def upload(self, bucket, query, body):
        if "upload_id" in query:
            return self.resume(query["upload_id"], body)
        kind, meta = query.get("uploadType"), {}
        if kind == "multipart":
            head = b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n"
            first, second = BytesParser().parsebytes(head + body).get_payload()
            meta, body = json.loads(first.get_payload(decode=True)), raw_part(body, second)
        elif kind == "resumable":
            meta = json.loads(body or b"{}")
        elif self.headers.get("Content-Type"):
            meta = {"contentType": self.headers["Content-Type"]}
        key = query.get("name") or meta.get("name")
        if kind != "resumable":
            return self.answer(200, store(bucket, key, body, meta, query).resource())
        check(bucket, key, {**query, "writing": "1"})
        COUNTER[0] += 1
        SESSIONS[str(COUNTER[0])] = Session(bucket, key, query, meta)
        where = f"http://{self.headers['Host']}/upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable&upload_id={COUNTER[0]}"
        self.answer(200, b"", [("Location", where)])

    def resume(self, number, body):
        session = SESSIONS.get(number)
        if session is None:
            raise Failure(404, "notFound")
        if self.command == "DELETE":
            del SESSIONS[number]
            return self.answer(499)
        if session.done:
            return self.answer(200, session.done.resource())
        asked = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers.get("Content-Range") or f"bytes */{len(body)}")
        if asked[1] and int(asked[1]) > len(session.body):
            raise Failure(400, "badRequest")
        if body:
            session.body = session.body[:int(asked[1] or 0)] + body
        if asked[2] != "*" and int(asked[2]) == len(session.body):
            session.done = store(session.bucket, session.key, session.body, session.meta, session.query)
            return self.answer(200, session.done.resource())
        if body and len(body) % 262144:
            raise Failure(400, "badRequest")
        self.answer(308, b"", [("Range", f"bytes=0-{len(session.body) - 1}")] if session.body else [])

    def xml_object(self, bucket, key, query, body):
        bucket_of(bucket)
        number = query.get("uploadId")
        if self.command == "POST" and "uploads" in query:
            COUNTER[0] += 1
            UPLOADS[str(COUNTER[0])] = {}
            return self.answer(200, f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><UploadId>{COUNTER[0]}</UploadId></InitiateMultipartUploadResult>".encode())
        if number is not None and number not in UPLOADS:
            raise Failure(404, "notFound")
        if self.command == "PUT" and number:
            UPLOADS[number][int(query["partNumber"])] = body
            return self.answer(200, b"", [("ETag", f'"{hashlib.md5(body).hexdigest()}"')])
        if self.command == "POST" and number:
            wanted = [int(part) for part in re.findall(rb"<PartNumber>(\d+)</PartNumber>", body)]
            whole = b"".join(UPLOADS[number][part] for part in wanted)
            found = store(bucket, key, whole, {}, {})
            del UPLOADS[number]
            return self.answer(200, f"<CompleteMultipartUploadResult><ETag>{found.resource()['etag']}</ETag></CompleteMultipartUploadResult>".encode())
        if self.command == "DELETE" and number:
            del UPLOADS[number]
            return self.answer(204)
        if self.command == "PUT":
            condition = self.headers.get("x-goog-if-generation-match")
            found = store(bucket, key, body, {}, {"ifGenerationMatch": condition} if condition else {})
            return self.answer(200, b"", [("x-goog-generation", found.generation)])
        found = object_of(bucket, key)
        if self.command == "DELETE":
            del BUCKETS[bucket][key]
            return self.answer(204)
        self.content(found)

    def batch(self, body):
        """Only deletions: nothing else comes in batches here."""
        parts = []
        for part in body.split(re.match(rb"--[^\r\n]+", body)[0])[1:-1]:
            target = re.search(rb"\r\nDELETE (\S+)", part)[1].decode()
            ident = re.search(rb"(?i)\r\ncontent-id: *(\S+)", part)
            found = re.search(r"/storage/v1/b/([^/]+)/o/([^/?]+)", target)
            gone = BUCKETS.get(unquote(found[1]), {}).pop(unquote(found[2]), None)
            status = "204 No Content" if gone else "404 Not Found"
            ident = ident[1].decode() if ident else ""
            parts.append(f"--batch\r\nContent-Type: application/http\r\nContent-ID: <response-{ident}>\r\n\r\n"
                         f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n\r\n")
        text = "".join(parts) + "--batch--\r\n"
        self.answer(200, text.encode(), [("Content-Type", "multipart/mixed; boundary=batch")])

    def log_message(self, *_):
        pass


def raw_part(body, part):
    """The bytes of the last part: the mail parser would change line ends in them."""
    boundary = re.match(rb"\s*(--[^\r\n]+)", body)[1]
    last = body.split(b"\r\n" + boundary)[-2]
    return last.split(b"\r\n\r\n", 1)[1]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
