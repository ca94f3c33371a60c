package agent

import (
	"os"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
)

// Status describes a running agent. The names in its JSON form are an interface to operators: they stay.
type Status struct {
	ID       identity.ClientID `json:"-"`
	ClientID string            `json:"client_id"` // ID in hexadecimal digits
	PID      int               `json:"pid"`
	Version  string            `json:"version"`
	Started  time.Time         `json:"started"`
	Labels   []string          `json:"labels"`
	Link     LinkStatus        `json:"link"`
	Outbox   OutboxStatus      `json:"outbox"`
	Services []ServiceStatus   `json:"services"`
}

// OutboxStatus says what the server does not have yet.
type OutboxStatus struct {
	Messages int           `json:"messages"`
	Bytes    int           `json:"bytes"`
	SetAside int           `json:"set_aside"` // of the messages: no server took them so far
	Classes  []ClassStatus `json:"classes"`   // by priority, the highest first
	Spool    *SpoolStatus  `json:"spool,omitempty"`
}

// ClassStatus is a priority's part of the outbox.
type ClassStatus struct {
	Priority string `json:"priority"`
	Messages int    `json:"messages"`
	Bytes    int    `json:"bytes"`
	Dropped  uint64 `json:"dropped"` // since the start
}

// SpoolStatus says what of the outbox is on disk.
type SpoolStatus struct {
	Directory string `json:"directory"`
	Messages  int    `json:"messages"`
	Bytes     int64  `json:"bytes"` // of files
	MaxBytes  int64  `json:"max_bytes"`
	Error     string `json:"error,omitempty"` // why messages are in memory only
}

// Status describes the agent as it is now.
func (a *Agent) Status() Status {
	id := a.ID()
	return Status{
		ID:       id,
		ClientID: id.String(),
		PID:      os.Getpid(),
		Version:  a.cfg.Link.Version,
		Started:  a.started,
		Labels:   a.cfg.Labels,
		Link:     a.link.currentStatus(),
		Outbox:   a.outbox.status(a.cfg.Spool.Dir),
		Services: a.services.status(),
	}
}

var classNames = [classes]string{classHigh: "HIGH", classMedium: "MEDIUM", classLow: "LOW"}

func (o *outbox) status(dir string) OutboxStatus {
	held := o.stats()
	s := OutboxStatus{Messages: held.Messages, Bytes: held.Bytes, SetAside: held.Aside}
	for i, l := range held.Class {
		s.Classes = append(s.Classes, ClassStatus{classNames[i], l.messages, l.bytes, held.Dropped[i]})
	}
	if o.keeper != nil {
		files := o.keeper.spool.Stats()
		s.Spool = &SpoolStatus{dir, files.Messages, files.Bytes, files.MaxBytes, o.keeper.health()}
	} else if dir != "" {
		s.Spool = &SpoolStatus{Directory: dir, Error: "the directory cannot be used"}
	}
	return s
}
