# SPDX-License-Identifier: Apache-2.0
"""moto as an S3 store, without what its own server spends half of its processor time on.

    python s3_store.py PORT

That one closes each connection after a request, takes a thread for it, and lists moto's two hundred
modules to find out which service a host name means.
"""

from __future__ import annotations

import functools
import socket
import sys

from gevent.pywsgi import WSGIServer
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app


class Server(WSGIServer):  # type: ignore[misc]
    def handle(self, sock: socket.socket, address: object) -> None:
        # An answer is sent in two pieces, and the second would wait 40 ms for a client to have
        # acknowledged the first.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle(sock, address)


if __name__ == "__main__":
    application = DomainDispatcherApplication(create_backend_app)
    application.get_backend_for_host = functools.cache(  # type: ignore[method-assign]
        application.get_backend_for_host
    )
    Server(("127.0.0.1", int(sys.argv[1])), application, log=None).serve_forever()
