# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  triton_url:
    description:
      - The Triton server, or all servers that read the same model repository.
      - Either C(host:port), which means HTTP, or a URL with C(http://), C(https://), C(grpc://) or
        C(grpcs://).
      - A load over gRPC does not disturb other clients of the server. A load over HTTP can make
        keep-alive clients wait until it ends.
      - The environment variable E(TRITON_URL) is used when it is omitted.
    type: list
    elements: str
    default: ['localhost:8000']
  load_url:
    description:
      - Where loads and unloads go, as C(grpc://host:port) or C(grpcs://host:port), for each of
        O(triton_url) in its order. It has to be the same server. Both addresses are compared before
        the first load, and a load that turns out to have gone to another one is taken back there.
      - While Triton answers a load over HTTP, one of its threads answers no other HTTP client whose
        connection it keeps. Over gRPC no client waits.
      - When omitted, loads go to O(triton_url). Where that is HTTP, a warning says what loads do to
        clients.
    type: list
    elements: str
  metrics_url:
    description:
      - Where the metrics of each of O(triton_url) are, in its order, such as C(http://host:8002).
        They say how much memory its GPUs have, and which of them answered.
      - When omitted, neither is known.
    type: list
    elements: str
  admin_key:
    description:
      - The key of a server that restricts its model-repository API with C(--http-restricted-api) or
        C(--grpc-restricted-protocol). The same name and secret serve for HTTP and gRPC.
    type: dict
    suboptions:
      name:
        description: Name of the key, as in the server's flag.
        type: str
        default: admin-key
      secret:
        description: The key. It appears in no log, diff, record or process list.
        type: str
        required: true
  ca_file:
    description:
      - Certificates in PEM form to trust instead of the system's, for C(https://) and C(grpcs://).
    type: path
  client_cert:
    description:
      - This client's certificate in PEM form, for a server that asks for one
        (C(--grpc-use-ssl-mutual)). Needs O(client_key).
    type: path
  client_key:
    description:
      - The private key of O(client_cert) in PEM form, a file that this user can read.
    type: path
  server_log:
    description:
      - The server's log file, where it is on this host. It has causes of failed loads that Triton's
        answers omit.
      - When omitted, the file that the server reports (C(--log-file)).
    type: path
  tensorrt_target:
    description:
      - TensorRT and GPUs of the servers. A TensorRT plan that was built for others is refused
        before anything changes. The tags C(triton.tensorrt.version) and
        C(triton.tensorrt.compute_capability) of a registry version say what its plan was built for.
      - A value that the tags or the servers do not give is not compared, and a warning says so.
    type: dict
    suboptions:
      version:
        description: The version of TensorRT, as in V(10.5).
        type: str
      compute_capability:
        description:
          - The compute capability of the GPUs, as in V(9.0).
          - When omitted and the servers are on this host, C(nvidia-smi) gives it.
        type: str
"""
