#!/usr/bin/env bash
# Generates all code anew, in a copy, and compares it with the tree: what somebody has not committed yet neither matters
# nor is touched.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -R proto tools "$copy/"
"$copy/proto/generate.sh"
if ! diff -r -q proto "$copy/proto"; then
  echo 'drift: generated code is not what its .proto files say: run "make proto" and commit the result' >&2
  exit 1
fi
