package server_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/server"
)

// get fetches a raw path, escapes as given, and returns the response with its body read.
func (a *testAgent) get(path string, header http.Header) (*http.Response, string) {
	a.t.Helper()
	client := &http.Client{Timeout: ioTimeout, Transport: &http.Transport{TLSClientConfig: a.tls()}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, "https://"+a.address+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := client.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return response, string(body)
}

func TestFiles(t *testing.T) {
	f := start(t)
	large := strings.Repeat("0123456789abcdef", 1<<16) // over one chunk
	for name, content := range map[string]string{"plain": "hello", "x/y%z": "odd name", "..": "dots", "large": large, "empty": ""} {
		if err := f.store.PutFile(t.Context(), "a b", name, bytes.NewBufferString(content)); err != nil {
			t.Fatal(err)
		}
	}
	agent := newTestAgent(t, f.address)
	tests := map[string]struct {
		path   string
		status int
		body   string
	}{
		"escaped twice":       {"/files/a%2520b/plain", 200, "hello"},
		"escaped once":        {"/files/a%20b/plain", 200, "hello"},
		"special name":        {"/files/a%2520b/x%252Fy%2525z", 200, "odd name"},
		"dots":                {"/files/a%2520b/%252E%252E", 200, "dots"},
		"many chunks":         {"/files/a%2520b/large", 200, large},
		"empty":               {"/files/a%2520b/empty", 200, ""},
		"unknown":             {"/files/a%2520b/nothing", 404, "file not found\n"},
		"no name":             {"/files/a%2520b/", 404, "file not found\n"},
		"too few components":  {"/files/only", 400, ""},
		"too many components": {"/files/a/b/c", 400, ""},
		"bad escape":          {"/files/a%2520b/%25zz", 400, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			response, body := agent.get(test.path, nil)
			if response.StatusCode != test.status {
				t.Errorf("status %d, want %d", response.StatusCode, test.status)
			}
			if test.status != 400 && body != test.body {
				t.Errorf("%d bytes %.40q, want %d", len(body), body, len(test.body))
			}
		})
	}
}

// A file that did not change is not sent again, and a tag tells changes within a second apart (G-41).
func TestConditionalAndRangedFiles(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	if err := f.store.PutFile(t.Context(), "S", "f", strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	response, _ := agent.get("/files/S/f", nil)
	modified, tag := response.Header.Get("Last-Modified"), response.Header.Get("ETag")
	if response, _ := agent.get("/files/S/f", http.Header{"If-Modified-Since": {modified}}); response.StatusCode != http.StatusNotModified {
		t.Errorf("status %d for an unchanged file", response.StatusCode)
	}
	if response, body := agent.get("/files/S/f", http.Header{"Range": {"bytes=1-2"}}); response.StatusCode != http.StatusPartialContent || body != "el" {
		t.Errorf("status %d, body %q for a range", response.StatusCode, body)
	}
	if err := f.store.PutFile(t.Context(), "S", "f", strings.NewReader("hellO")); err != nil {
		t.Fatal(err)
	}
	if response, body := agent.get("/files/S/f", http.Header{"If-None-Match": {tag}}); response.StatusCode != http.StatusOK || body != "hellO" {
		t.Errorf("status %d, body %q for a file that changed within a second", response.StatusCode, body)
	}
}

// With file authorization a certificate and the required label are needed (G-17).
func TestFileAuthorization(t *testing.T) {
	f := start(t, func(c *server.Config) { c.AuthorizeFiles = true; c.RequiredLabel = "fleet" })
	agent := newTestAgent(t, f.address)
	if response, body := agent.get("/files/S/f", nil); response.StatusCode != http.StatusUnauthorized || body != "unauthorized\n" {
		t.Errorf("status %d, body %q without the label", response.StatusCode, body)
	}
	labels := http.Header{"X-Fleetspeak-Labels": {"linux", "fleet"}}
	if response, _ := agent.get("/files/S/f", labels); response.StatusCode != http.StatusNotFound {
		t.Errorf("status %d with the label, want 404 for an unknown file", response.StatusCode)
	}
}

// A file may take as long as a slow line needs: no deadline that is meant for small requests ends it.
func TestSlowFile(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		content := strings.Repeat("0123456789abcdef", 1<<14)
		if err := f.store.PutFile(t.Context(), "S", "f", strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		stream := &testStream{t: t, raw: l.dial(t)}
		stream.request("GET /files/S/f HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if status := stream.status(); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		var got bytes.Buffer
		for range 4 {
			time.Sleep(2 * time.Minute)
			if _, err := io.CopyN(&got, stream.reader, int64(len(content)/4)); err != nil {
				t.Fatal(err)
			}
		}
		if got.String() != content {
			t.Error("the content differs")
		}
	})
}
