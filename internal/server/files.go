package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/store"
)

const (
	// fileBudget bounds the transfer of a file.
	fileBudget = 20 * time.Minute
	// labelsHeader carries the labels of the agent, one header line each.
	labelsHeader = "X-Fleetspeak-Labels"
	// maxFileComponent is longer than any name that can be stored.
	maxFileComponent = 1024
)

// handleFile serves one stored file: /files/<service>/<name>. Every method gets it, as with the original.
func (s *Server) handleFile(w http.ResponseWriter, r *http.Request) {
	err := error(notReady(http.StatusServiceUnavailable))
	if s.startWork() {
		defer s.work.Done()
		err = s.serveFile(w, r)
	}
	if err != nil {
		refused := asRefusal(err)
		s.note(refused, r.RemoteAddr)
		s.metrics.files.WithLabelValues(refused.reason).Inc()
		refused.answer(w)
		return
	}
	s.metrics.files.WithLabelValues("ok").Inc()
}

func (s *Server) serveFile(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.AuthorizeFiles {
		if err := s.authorizeFile(r); err != nil {
			return err
		}
	}
	service, name, err := fileName(r.URL.Path)
	if err != nil {
		return refuse(http.StatusBadRequest, "bad_name", "%v", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), fileBudget)
	defer cancel()
	file, err := s.openFile(ctx, service, name)
	if err != nil {
		return err
	}
	defer func() {
		if err := file.Close(); err != nil {
			glog.Warningf("file %s/%s: %v", service, name, err)
		}
	}()
	setDeadlines(w, fileBudget) // for reads too: one that passes ends the context of the request
	info := file.Info()
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, info.Modified.UnixMicro(), info.Size)) // finer than seconds (G-41)
	http.ServeContent(w, r, name, info.Modified, file)
	return nil
}

func (s *Server) openFile(ctx context.Context, service, name string) (StoredFile, error) {
	notFound := refuse(http.StatusNotFound, "not_found", "file not found")
	if service == "" || name == "" {
		return nil, notFound
	}
	file, err := s.cfg.Store.OpenFile(ctx, service, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound
	}
	if err != nil {
		r := failed("", err)
		r.text = "the file cannot be read"
		return nil, r
	}
	return file, nil
}

// authorizeFile puts a request for a file to the checks of a contact.
func (s *Server) authorizeFile(r *http.Request) error {
	unauthorized := refuse(http.StatusUnauthorized, "not_authorized", "unauthorized")
	if _, err := netip.ParseAddrPort(r.RemoteAddr); err != nil {
		return unauthorized
	}
	if _, err := s.authenticate(r); err != nil {
		unauthorized.cause = err
		return unauthorized
	}
	if !s.labelled(r.Header.Values(labelsHeader)) {
		return unauthorized
	}
	return nil
}

// fileName takes a decoded path apart. Agents escape each component before it goes into the URL, which escapes it again;
// so what is left after the HTTP library's decoding is decoded once more. A request that was escaped once works as well,
// as long as its names hold neither a slash nor a percent sign.
func fileName(path string) (service, name string, err error) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) != 3 {
		return "", "", fmt.Errorf("want /files/<service>/<name>, each part escaped")
	}
	if service, err = url.PathUnescape(parts[1]); err != nil {
		return "", "", fmt.Errorf("bad escape in the service name")
	}
	if name, err = url.PathUnescape(parts[2]); err != nil {
		return "", "", fmt.Errorf("bad escape in the file name")
	}
	if len(service) > maxFileComponent || len(name) > maxFileComponent {
		return "", "", fmt.Errorf("a name is longer than %d bytes", maxFileComponent)
	}
	return service, name, nil
}
