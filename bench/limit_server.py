"""`python -m bench.limit_server site.toml PORT`: the TLS and HTTP server of a site, answering a constant: the edge's limit."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from starlette.types import Receive, Scope, Send

from keystrand.config.load import load_site
from keystrand.net.http_server import HttpServer
from keystrand.net.http_whole import Reply
from keystrand.node.site import Sinks, tls_contexts

ANSWER = b'{"keys":[{"key_ID":"00000000-0000-4000-8000-000000000000","key":"' + b"A" * 43 + b'="}]}'


async def constant(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def whole(scope: Scope, body: bytes, reply: Reply) -> None:
    reply(200, [(b"content-type", b"application/json")], ANSWER)


async def main() -> None:
    config = load_site(Path(sys.argv[1]))
    contexts = tls_contexts(config.tls, Sinks(()))
    server = HttpServer(constant, "127.0.0.1", int(sys.argv[2]), contexts=contexts, whole=whole)
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
