// Package deptest holds the rules of who may import whom. It has no code; its test reads the import graph of the whole
// module and fails with the rule that is broken and the reason for it. docs/contributing.md explains the layers.
package deptest
