package doclint_test

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// root is the top of the repository.
const root = "../.."

var (
	// inlineLink finds [text](target) and ![text](target "title").
	inlineLink = regexp.MustCompile(`\]\(<?([^()\s<>]+)>?(?:\s+"[^"]*")?\)`)
	// referenceLink finds [name]: target.
	referenceLink = regexp.MustCompile(`(?m)^\s{0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$`)
	heading       = regexp.MustCompile(`(?m)^#{1,6}\s+(.*?)\s*#*$`)
	fence         = regexp.MustCompile("(?ms)^\\s*(```|~~~).*?^\\s*(```|~~~)\\s*$")
	codeSpan      = regexp.MustCompile("`[^`\n]*`")
)

func TestRelativeLinks(t *testing.T) {
	pages := markdown(t)
	if len(pages) == 0 {
		t.Fatal("there are no pages")
	}
	for _, page := range pages {
		for _, target := range links(read(t, page)) {
			checkLink(t, page, target)
		}
	}
}

// markdown returns the paths of all pages, from root.
func markdown(t *testing.T) []string {
	t.Helper()
	var pages []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case strings.HasSuffix(name, ".md"):
			pages = append(pages, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// links returns the targets of a page's links; code is no link.
func links(text string) []string {
	text = codeSpan.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
	var targets []string
	for _, pattern := range []*regexp.Regexp{inlineLink, referenceLink} {
		for _, match := range pattern.FindAllStringSubmatch(text, -1) {
			targets = append(targets, match[1])
		}
	}
	return targets
}

// checkLink follows a link to a file or a heading of this repository. Those that lead elsewhere are not followed.
func checkLink(t *testing.T, page, target string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Errorf("%s: link %q: %v", page, target, err)
		return
	}
	if u.Scheme != "" || u.Host != "" {
		return
	}
	file := page
	if u.Path != "" {
		file = path.Join(path.Dir(page), u.Path)
	}
	if _, err := os.Stat(filepath.Join(root, file)); errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(file, "..") {
		t.Errorf("%s: link %q leads nowhere", page, target)
		return
	}
	if u.Fragment != "" && strings.HasSuffix(file, ".md") && !anchors(read(t, file))[u.Fragment] {
		t.Errorf("%s: link %q: there is no such heading in %s", page, target, file)
	}
}

// anchors returns the names that a page's headings get on the usual code hosts.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		found[anchor(match[1])] = true
	}
	return found
}

func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, title)
}

func TestLinksAreFound(t *testing.T) {
	text := "[a](one.md) ![b](two.png \"title\") `[c](code.md)`\n```\n[d](fence.md)\n```\n[e](three.md#x)\n[f]: four.md\n"
	want := "one.md two.png three.md#x four.md"
	if got := strings.Join(links(text), " "); got != want {
		t.Errorf("links %q, want %q", got, want)
	}
	if got, want := anchor("2.1 Who may import `whom`?"), "21-who-may-import-whom"; got != want {
		t.Errorf("anchor %q, want %q", got, want)
	}
}
