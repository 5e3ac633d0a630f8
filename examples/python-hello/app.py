"""Answers with a greeting, the path that was asked for, and the version of Python."""

import sys

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam

WRITE_LIMIT = 4096  # bytes that one call of the host takes


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        path = request.path_with_query() or "/"
        print(f"asked for {path}")
        version = ".".join(str(part) for part in sys.version_info[:3])
        text = f"Hello from Python {version} in a microVM!\npath: {path}\n"

        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain; charset=utf-8")]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            try:
                data = text.encode()
                for start in range(0, len(data), WRITE_LIMIT):
                    stream.blocking_write_and_flush(data[start : start + WRITE_LIMIT])
            except Err as error:
                # Closed: the client has gone, or asked for the head alone.
                if not isinstance(error.value, StreamError_Closed):
                    raise
        OutgoingBody.finish(body, None)
