#!/usr/bin/env bash
# Installs the Debian packages with the programs that tests and lint need, as far as they are missing. Tests never skip
# what they cannot run, so this fails when it cannot help.
set -euo pipefail

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" # Debian keeps daemons where only root looks

# program package
needs="
mariadbd  mariadb-server
haproxy   haproxy
tinyproxy tinyproxy-bin
protoc    protobuf-compiler
ip        iproute2
gcc       gcc
make      make
"

packages=()
while read -r program package; do
  if [ -n "$program" ] && ! command -v "$program" >/dev/null; then
    packages+=("$package")
  fi
done <<<"$needs"
# The race detector needs a C library to link with.
if ! echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1; then
  packages+=(libc6-dev)
fi
# Debian packs what .proto files import apart from protoc.
if ! echo 'syntax = "proto3"; import "google/protobuf/any.proto";' | protoc -I/dev -o/dev/null /dev/stdin >/dev/null 2>&1; then
  packages+=(libprotobuf-dev)
fi
if [ ${#packages[@]} -eq 0 ]; then
  exit 0
fi

fail() {
  echo "deps: $1" >&2
  echo "deps: install these Debian packages, or what provides their programs: ${packages[*]}" >&2
  exit 1
}

command -v apt-get >/dev/null || fail "programs are missing, and there is no apt-get to install them with"
root=()
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null || fail "programs are missing, and installing them needs root or sudo without a password"
  root=(sudo -n)
fi

echo "deps: installing ${packages[*]}"
options=(-qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0)
"${root[@]}" apt-get "${options[@]}" update </dev/null || fail "apt-get update failed"
"${root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get "${options[@]}" install --yes --no-install-recommends "${packages[@]}" </dev/null >/dev/null || fail "apt-get install failed"
