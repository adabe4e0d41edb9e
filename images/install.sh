#!/bin/sh
# Runs inside an image build: a virtual environment at /opt/venv with the pinned packages named in a requirements file,
# byte-compiled, without their tests. The build secrets `ca` (CA certificates) and `pip` (pip.conf) are used when given.
# usage: install.sh REQUIREMENTS CONSTRAINTS
set -eu
if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi
if [ -s /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

python3 -m venv --without-pip /opt/venv
python3 -m pip --python /opt/venv/bin/python install --no-compile --only-binary :all: --constraint "$2" --requirement "$1"
find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +
# unchecked: the files never change, so imports need not compare times
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib
