#!/usr/bin/env bash
# Runs each fuzz target of the module for FUZZTIME. What a target finds is written below its package's testdata/fuzz and
# runs with the ordinary tests from then on.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Before Go 1.27 the end of -fuzztime may itself be reported as a failure of the target (go.dev/issue/75804). It has this
# one line and no failing input; such a run proves nothing either way and is done again.
is_deadline_race() {
  grep -qE '^ +context deadline exceeded$' "$1" && ! grep -qE 'Failing input written|panic:|fatal error:|hung or terminated' "$1"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz PACKAGE TARGET
fuzz() {
  for _ in 1 2 3; do
    if go test -run '^$' -fuzz "^$2\$" -fuzztime "${FUZZTIME:-5s}" "$1" </dev/null 2>&1 | tee "$log"; then
      return 0
    fi
    is_deadline_race "$log" || return 1
  done
  return 1
}

failed=()
while IFS=: read -r file target; do
  package=./$(dirname "$file")
  echo "== $package $target"
  fuzz "$package" "$target" || failed+=("$package $target")
done < <(grep -roE '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' . | sed 's#^\./##; s#:func #:#' | LC_ALL=C sort)

if [ ${#failed[@]} -gt 0 ]; then
  printf 'fuzz: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
