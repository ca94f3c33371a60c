package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	revocationFile     = "RevokedCertificates"
	revocationInterval = time.Hour
	revocationRetry    = 5 * time.Minute
	fileTimeout        = 30 * time.Second
	maxRevocationList  = 16 << 20
)

// runRevocation keeps the list of revoked certificates up to date until ctx ends. A missing list is normal.
func (l *link) runRevocation(ctx context.Context) {
	modified := ""
	for {
		latest, err := l.fetchRevoked(ctx, modified)
		if err != nil && ctx.Err() == nil {
			glog.Warningf("list of revoked certificates: %v", err)
		}
		wait := revocationRetry
		if err == nil {
			modified, wait = latest, revocationInterval
		}
		if !pause(ctx, stretch(wait), nil) {
			return
		}
	}
}

// fetchRevoked reads the list if it changed, and returns its new modification time as the server wrote it (G-52).
func (l *link) fetchRevoked(ctx context.Context, modified string) (string, error) {
	data, latest, err := l.fetchFile(ctx, systemService, revocationFile, modified)
	switch {
	case errors.Is(err, errFileUnchanged):
		return modified, nil
	case err != nil:
		return modified, err
	}
	list := &fspb.RevokedCertificateList{}
	if err := wire.Unmarshal(data, list, wire.MaxServerElements); err != nil {
		return modified, fmt.Errorf("decode: %w", err)
	}
	grown, refused := l.state.revoke(list.Serials)
	if refused > 0 {
		glog.Errorf("%d of %d serials in the list of revoked certificates are not taken: the agent keeps %d, of at most %d bytes each; "+
			"remove those of expired certificates from the file %s", refused, len(list.Serials), maxRevoked, maxSerialSize, revocationFile)
	}
	if grown {
		glog.Infof("certificates were revoked, %d are listed", len(list.Serials))
		l.transports.closeIdle()
		l.recheck()
	}
	return latest, nil
}

// recheck ends the session if the server behind it is trusted no more.
func (l *link) recheck() {
	l.mu.Lock()
	live := l.live
	l.mu.Unlock()
	if live == nil || live.tls == nil {
		return
	}
	if err := checkRevoked(*live.tls, l.state.isRevoked); err != nil {
		live.cancel(err)
	}
}

// errFileUnchanged says that there is nothing newer, or nothing at all.
var errFileUnchanged = errors.New("file is missing or not modified")

// fetchFile reads a file from the first server that has an answer, in the order of contacts: a server that is known to be
// dead costs no file its timeout, and one that asked for peace has it.
func (l *link) fetchFile(ctx context.Context, service, name, modified string) (data []byte, latest string, err error) {
	err = errNoServerReady
	for _, p := range l.endpoints.ready(time.Now()) {
		data, latest, err = l.fetchFileFrom(ctx, p.address, service, name, modified)
		if err == nil || errors.Is(err, errFileUnchanged) || ctx.Err() != nil {
			return data, latest, err
		}
	}
	return nil, "", err
}

func (l *link) fetchFileFrom(ctx context.Context, address, service, name, modified string) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	id := l.state.identity()
	request, err := l.request(ctx, id, http.MethodGet, fileURL(address, service, name), nil)
	if err != nil {
		return nil, "", fmt.Errorf("make request: %w", err)
	}
	for _, label := range l.labels {
		request.Header.Add("X-Fleetspeak-Labels", label)
	}
	if modified != "" {
		request.Header.Set("If-Modified-Since", modified)
	}
	response, err := l.transports.get(id).RoundTrip(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified, http.StatusNotFound:
		return nil, "", errFileUnchanged
	default:
		return nil, "", newStatusError(response)
	}
	record, err := wire.ReadAll(ctx, response.Body, maxRevocationList, nil)
	if err != nil {
		return nil, "", err
	}
	return record.Bytes(), response.Header.Get("Last-Modified"), nil // never released, so the bytes stay ours
}

// fileURL escapes each part before it goes into the path, which is escaped again: that is how servers read it (G-41).
func fileURL(address, service, name string) string {
	path := "/files/" + url.PathEscape(service) + "/" + url.PathEscape(name)
	return (&url.URL{Scheme: "https", Host: address, Path: path}).String()
}
