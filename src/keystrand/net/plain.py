"""GET from a listener of the own machine, in clear: the status page of a site."""

from __future__ import annotations

import http.client
from typing import Final

from keystrand.core.errors import Unavailable

ANSWER_BYTES_MAX: Final = 16_777_216
TIMEOUT_S: Final = 5.0


def fetch(host: str, port: int, path: str = "/api/v1/status") -> bytes:
    """The JSON of the site's own status page, or what else is at `path`. Raises Unavailable."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(ANSWER_BYTES_MAX)
    except TimeoutError:
        words = f"the site on {host}:{port} takes connections and does not answer within {TIMEOUT_S:g} s"
        raise Unavailable(words, hint="it hangs, or its host does: docs/runbooks/site-unsound.md") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"no site answers on {host}:{port}: {error}", hint="keystrand serve") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise Unavailable(f"the site answered {answer.status} on {host}:{port}")
    return body
