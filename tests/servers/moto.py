"""moto's server, with each change of its objects as one step.

moto looks whether a condition holds and then stores, each request in a thread of its own: beside a
busy machine two creations of one key both succeed, which no real store allows and which would make
the tests of one winner tests of luck. So a change waits here for the change before it, once its
body has come: one that stalls on the way keeps nobody waiting. The arguments are moto's own.
"""

import io
import threading

import moto.server

CHANGES = threading.Lock()


class OneChangeAtATime(moto.server.DomainDispatcherApplication):
    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] in ("GET", "HEAD", "OPTIONS"):
            return super().__call__(environ, start_response)
        environ["wsgi.input"] = io.BytesIO(whole_body(environ))
        with CHANGES:
            return super().__call__(environ, start_response)


def whole_body(environ):
    """What the request brings: as long as it says, or in chunks to their end."""
    length = environ.get("CONTENT_LENGTH")
    if not length:
        is_chunked = environ.get("wsgi.input_terminated", False)
        return environ["wsgi.input"].read() if is_chunked else b""
    body = environ["wsgi.input"].read(int(length))
    if len(body) < int(length):
        raise ConnectionAbortedError("the body ended before its length")
    return body


moto.server.DomainDispatcherApplication = OneChangeAtATime
moto.server.main()
