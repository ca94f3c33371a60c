#!/usr/bin/env bash
# Looks for known vulnerabilities in what the module links. Where the database cannot be reached it says so and passes:
# a network is no property of the source.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

database=vuln.go.dev
if ! getent hosts "$database" >/dev/null; then # known before everything is built for it
  echo "vuln: NOT CHECKED, there is no host $database here"
  exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
timeout 300 go tool -modfile=tools/go.mod govulncheck ./... >"$log" 2>&1 || code=$?
if [ "$code" -ne 0 ] && grep -q 'fetching vulnerabilities' "$log"; then
  echo "vuln: NOT CHECKED, the vulnerability database cannot be reached: $(tail -n 1 "$log")"
  exit 0
fi
cat "$log"
exit "$code"
