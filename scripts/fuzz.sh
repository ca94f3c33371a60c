#!/usr/bin/env bash
# Runs each fuzz target of the module for FUZZTIME, as many at a time as there are processors. What a target finds is
# written below its package's testdata/fuzz and runs with the ordinary tests from then on.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
module=$(go list -m)
corpus=$(go env GOCACHE)/fuzz/$module # where "go test -fuzz" keeps what it found interesting
export work corpus

# build PACKAGE... makes their test programs. "go test -fuzz" would compile all that is below a target for it, the standard
# library too, where there is so much to see that some targets hardly run for it. What should guide the search is the module
# itself and the parser of protocol buffers; everything else is taken as "make build" has compiled it.
build() {
  CGO_ENABLED=0 GOFLAGS=-trimpath go test -c -vet=off -o "$work/" \
    -gcflags="$module/...=-d=libfuzzer" -gcflags=google.golang.org/protobuf/...=-d=libfuzzer "$@"
}

# Before Go 1.27 the end of -test.fuzztime may itself be reported as a failure of the target (go.dev/issue/75804). It has this
# one line and no failing input; such a run proves nothing either way and is done again.
is_deadline_race() {
  grep -qE '^ +context deadline exceeded$' "$1" && ! grep -qE 'Failing input written|panic:|fatal error:|hung or terminated' "$1"
}

# try PACKAGE TARGET
try() {
  cd "$1"
  "$work/${1##*/}.test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "${FUZZTIME:-5s}" \
    -test.fuzzcachedir "$corpus/${1#./}" -test.parallel 1 </dev/null
}

# fuzz PACKAGE TARGET prints what comes of it in one piece.
fuzz() {
  local log=$work/${1//\//_}.$2.log result=FAILED
  for _ in 1 2 3; do
    if (try "$1" "$2") >"$log" 2>&1; then
      result=ok
      break
    fi
    is_deadline_race "$log" || break
  done
  if grep -q 'not built with coverage instrumentation' "$log"; then
    result=FAILED # it ran blind
  fi
  printf '== %s %s: %s\n%s\n' "$1" "$2" "$result" "$(cat "$log")"
  [ "$result" = ok ]
}
export -f is_deadline_race try fuzz

targets=$(grep -roE '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' . | sed 's#/[^/]*:func # #' | LC_ALL=C sort)
mapfile -t packages < <(cut -d ' ' -f 1 <<<"$targets" | uniq)
build "${packages[@]}"
if ! xargs -P "$(nproc)" -L 1 bash -c 'fuzz "$@"' fuzz <<<"$targets"; then
  echo 'fuzz: a target FAILED' >&2
  exit 1
fi
