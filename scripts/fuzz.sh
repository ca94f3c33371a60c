#!/usr/bin/env bash
# Runs each fuzz target of the module for FUZZTIME. What a target finds is written below its package's testdata/fuzz and
# runs with the ordinary tests from then on.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=()
while IFS=: read -r file target; do
  package=./$(dirname "$file")
  echo "== $package $target"
  if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-5s}" "$package" </dev/null; then
    failed+=("$package $target")
  fi
done < <(grep -roE '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' . | sed 's#^\./##; s#:func #:#' | LC_ALL=C sort)

if [ ${#failed[@]} -gt 0 ]; then
  printf 'fuzz: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
