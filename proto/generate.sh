#!/usr/bin/env bash
# Regenerates the Go code beside every .proto file. Needs protoc 3.21 and the Go toolchain; the two plugins come from
# tools/go.mod, so that everybody generates the same bytes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/plugins" "$work/out"

go build -C ../tools -o "$work/plugins/" \
  google.golang.org/protobuf/cmd/protoc-gen-go \
  google.golang.org/grpc/cmd/protoc-gen-go-grpc

find . -name '*.proto' -printf '%P\0' | LC_ALL=C sort -z | PATH="$work/plugins:$PATH" xargs -0 protoc \
  --proto_path=. \
  --go_out="$work/out" --go_opt=paths=source_relative \
  --go-grpc_out="$work/out" --go-grpc_opt=paths=source_relative

# Only now touch the tree, so that a mistake in a .proto costs nothing; code whose .proto is gone goes too.
find . -name '*.pb.go' -delete
cp -R "$work/out/." .
