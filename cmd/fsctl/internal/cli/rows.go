package cli

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/render"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// The rows are fsctl's JSON output. Their names are those of the protocol's fields and stay as they are: programs read
// them. IDs are hex, times RFC 3339.

// clientLabels is the service that owns the labels which clients claim for themselves.
const clientLabels = "client"

type labelRow struct {
	Service string `json:"service_name"`
	Label   string `json:"label"`
}

func (l labelRow) String() string {
	if l.Service == clientLabels {
		return l.Label
	}
	return l.Service + ":" + l.Label
}

// parseLabel reads LABEL or SERVICE:LABEL. A label without a service is one of the client itself.
func parseLabel(text string) labelRow {
	if service, label, ok := strings.Cut(text, ":"); ok {
		return labelRow{service, label}
	}
	return labelRow{clientLabels, text}
}

func newLabelRows(labels []*fspb.Label) []labelRow {
	rows := make([]labelRow, len(labels))
	for i, l := range labels {
		rows[i] = labelRow{l.GetServiceName(), l.GetLabel()}
	}
	return rows
}

func labelTexts(rows []labelRow) []string {
	texts := make([]string, len(rows))
	for i, l := range rows {
		texts[i] = l.String()
	}
	return texts
}

type clientRow struct {
	ClientID    string     `json:"client_id"`
	Labels      []labelRow `json:"labels"`
	LastContact time.Time  `json:"last_contact_time,omitzero"`
	Address     string     `json:"last_contact_address"`
	StreamingTo string     `json:"last_contact_streaming_to"`
	LastClock   time.Time  `json:"last_clock,omitzero"`
	Blacklisted bool       `json:"blacklisted"`
}

func newClientRow(c *serverpb.Client) clientRow {
	return clientRow{
		ClientID:    hex(c.GetClientId()),
		Labels:      newLabelRows(c.GetLabels()),
		LastContact: toTime(c.GetLastContactTime()),
		Address:     c.GetLastContactAddress(),
		StreamingTo: c.GetLastContactStreamingTo(),
		LastClock:   toTime(c.GetLastClock()),
		Blacklisted: c.GetBlacklisted(),
	}
}

func (c *clientRow) labelTexts() []string { return labelTexts(c.Labels) }

type contactRow struct {
	Time          time.Time `json:"timestamp"`
	Address       string    `json:"observed_address"`
	SentNonce     string    `json:"sent_nonce"` // decimal; too large for JSON numbers
	ReceivedNonce string    `json:"received_nonce"`
}

func newContactRow(c *serverpb.ClientContact) contactRow {
	return contactRow{
		Time:          toTime(c.GetTimestamp()),
		Address:       c.GetObservedAddress(),
		SentNonce:     fmt.Sprint(c.GetSentNonce()),
		ReceivedNonce: fmt.Sprint(c.GetReceivedNonce()),
	}
}

type serviceRow struct {
	Name      string `json:"name"`
	Signature string `json:"signature"` // hex
}

func hex(id []byte) string { return fmt.Sprintf("%x", id) }

// toTime returns the zero time for an absent timestamp.
func toTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// countRow is a number of things.
type countRow struct {
	Count uint64 `json:"count"`
}

// emptiedRow counts the clients whose queues are empty now.
type emptiedRow struct {
	Clients int `json:"clients"`
}

func field(name string, value any) render.Field { return render.Field{Name: name, Value: value} }
