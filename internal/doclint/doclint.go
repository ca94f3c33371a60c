// Package doclint keeps the documentation true to the tree. It has no code; its test follows every relative link in the
// Markdown files.
package doclint
