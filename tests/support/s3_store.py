# SPDX-License-Identifier: Apache-2.0
"""moto's server, which finds out once and not in each request which service a host name means.

    python s3_store.py -H 127.0.0.1 -p PORT

It lists all of its two hundred modules for that: a quarter of the processor time of a request.
"""

from __future__ import annotations

import functools

from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import main

if __name__ == "__main__":
    DomainDispatcherApplication.get_backend_for_host = functools.cache(  # type: ignore[method-assign]
        DomainDispatcherApplication.get_backend_for_host
    )
    main()
