#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes of the bed's host a Triton with the layout of NVIDIA's image: /opt/tritonserver/bin/tritonserver, its backends and caches
# where the program looks for them, and an entry point that execs its arguments. /triton is roles/triton/files of the checkout.
set -eu
root=/opt/tritonserver
python3 -m venv "$root/python"
"$root/python/bin/python" -m pip install -qq --no-input --disable-pip-version-check --no-cache-dir -r /triton/requirements-server.txt
site="$("$root/python/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
server="$site/pytriton/tritonserver"
mkdir -p "$root/bin" "$root/lib" "$root/backends" "$root/caches" /opt/nvidia
mv "$server/bin/tritonserver" "$root/bin/tritonserver"
mv "$site"/nvidia_pytriton.libs/* "$root/lib/"
mv "$server/backends/python" "$root/backends/python"
mv "$server"/caches/* "$root/caches/"
stub="$(find "$site/pytriton" -path '*python_backend_stubs/3.11/*' -name 'triton_python_backend_stub*' | head -n 1)"
mv "$stub" "$root/backends/python/triton_python_backend_stub"
cp -r /triton/backends/onnxruntime /triton/backends/fil "$root/backends/"
chmod -R a+rX "$root"
chmod 0755 "$root/bin/tritonserver" "$root/backends/python/triton_python_backend_stub"
# As in NVIDIA's image, where no byte code of a model is written into its folder either.
echo 'import sys; sys.dont_write_bytecode = True' > "$site/no_bytecode.pth"
rm -rf "$site/pytriton" "$site"/nvidia_pytriton*
printf '#!/bin/sh\nexec "$@"\n' > /opt/nvidia/nvidia_entrypoint.sh
chmod 0755 /opt/nvidia/nvidia_entrypoint.sh
useradd --uid 1000 --create-home triton-server
