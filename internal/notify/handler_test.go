package notify_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
	"github.com/farspeak/farspeak/internal/store"
	notifypb "github.com/farspeak/farspeak/proto/farspeak/notify"
)

// do makes one request and returns its status and body.
func do(t *testing.T, method, url, token string, body []byte) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// The order of the checks is the original's: directory, then ID, then method.
func TestHandlerSingle(t *testing.T) {
	const hexID = "0123456789abcdef"
	id, err := identity.ParseClientID(hexID)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		method, path string
		want         int
	}{
		{http.MethodPost, "/client/" + hexID, http.StatusOK},
		{http.MethodPost, "/client/" + strings.ToUpper(hexID), http.StatusOK},
		{http.MethodPost, "/client/" + hexID + "?q=1", http.StatusOK},
		{http.MethodGet, "/client/" + hexID, http.StatusBadRequest},
		{http.MethodPut, "/client/" + hexID, http.StatusBadRequest},
		{http.MethodPost, "/client/", http.StatusBadRequest},
		{http.MethodPost, "/client/nil", http.StatusBadRequest},
		{http.MethodPost, "/client/0123", http.StatusBadRequest},
		{http.MethodPost, "/client/" + hexID + "00", http.StatusBadRequest},
		{http.MethodPost, "/client/0123456789abcdeg", http.StatusBadRequest},
		{http.MethodGet, "/client/bad", http.StatusBadRequest},
		{http.MethodPost, "/client", http.StatusNotFound},
		{http.MethodPost, "/", http.StatusNotFound},
		{http.MethodPost, "/clients/" + hexID, http.StatusNotFound},
		{http.MethodPost, "/client/" + hexID + "/", http.StatusNotFound},
		{http.MethodPost, "//client/" + hexID, http.StatusNotFound},
		{http.MethodGet, "/farspeak/other", http.StatusNotFound},
	}
	for _, test := range tests {
		t.Run(test.method+test.path, func(t *testing.T) {
			sink := newRecorder()
			address := serve(t, notify.NewHandler(sink, notify.Config{}))
			status, body := do(t, test.method, "http://"+address+test.path, "", nil)
			if status != test.want {
				t.Errorf("status %d, want %d", status, test.want)
			}
			if test.want != http.StatusOK {
				if len(sink.wokenIDs()) != 0 {
					t.Error("a refused notification reached the sink")
				}
				return
			}
			if body != "" {
				t.Errorf("body %q, want none", body)
			}
			if got := sink.wokenIDs(); !slices.Equal(got, []identity.ClientID{id}) {
				t.Errorf("woken: %v, want %v", got, id)
			}
		})
	}
}

func encode(t *testing.T, batch *notifypb.Batch) []byte {
	t.Helper()
	body, err := proto.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestHandlerBatch(t *testing.T) {
	a, b := clientID(1), clientID(2)
	tooMany := &notifypb.Batch{}
	for range notify.MaxBatchIDs + 1 {
		tooMany.ClientIds = append(tooMany.ClientIds, a[:])
	}
	tests := map[string]struct {
		method string
		body   []byte
		want   int
	}{
		"all kinds":       {http.MethodPost, encode(t, &notifypb.Batch{ClientIds: [][]byte{a[:], b[:]}, BlacklistedClientIds: [][]byte{b[:]}, BroadcastsChanged: true}), http.StatusNoContent},
		"empty":           {http.MethodPost, nil, http.StatusNoContent},
		"method":          {http.MethodGet, nil, http.StatusMethodNotAllowed},
		"garbage":         {http.MethodPost, []byte("\xff\xff garbage"), http.StatusBadRequest},
		"short ID":        {http.MethodPost, encode(t, &notifypb.Batch{ClientIds: [][]byte{a[:], a[:7]}, BroadcastsChanged: true}), http.StatusBadRequest},
		"empty ID":        {http.MethodPost, encode(t, &notifypb.Batch{BlacklistedClientIds: [][]byte{{}}}), http.StatusBadRequest},
		"too many":        {http.MethodPost, encode(t, tooMany), http.StatusBadRequest},
		"too large":       {http.MethodPost, make([]byte, 1<<20), http.StatusRequestEntityTooLarge},
		"truncated field": {http.MethodPost, []byte{0x0a, 0x08, 1, 2}, http.StatusBadRequest},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			sink := newRecorder()
			address := serve(t, notify.NewHandler(sink, notify.Config{}))
			status, _ := do(t, test.method, "http://"+address+"/farspeak/notify", "", test.body)
			if status != test.want {
				t.Errorf("status %d, want %d", status, test.want)
			}
			var woken, blacklisted []identity.ClientID
			changed := 0
			if name == "all kinds" {
				woken, blacklisted, changed = []identity.ClientID{a, b}, []identity.ClientID{b}, 1
			}
			if !slices.Equal(sink.wokenIDs(), woken) || !slices.Equal(sink.blacklisted, blacklisted) || sink.changed != changed {
				t.Errorf("sink heard %v, %v, %d", sink.wokenIDs(), sink.blacklisted, sink.changed)
			}
		})
	}
}

// The largest batch that a Client sends has room in the limit of the body.
func TestHandlerTakesAFullBatch(t *testing.T) {
	batch := &notifypb.Batch{BroadcastsChanged: true}
	for _, id := range clientIDs(notify.MaxBatchIDs) {
		batch.ClientIds = append(batch.ClientIds, id.Bytes())
		batch.BlacklistedClientIds = append(batch.BlacklistedClientIds, id.Bytes())
	}
	batch.Sealed = fullSeal(t)
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(1)}))
	if status, text := do(t, http.MethodPost, "http://"+address+"/farspeak/notify", "", encode(t, batch)); status != http.StatusNoContent {
		t.Fatalf("status %d: %s", status, text)
	}
	if len(sink.woken) != notify.MaxBatchIDs-1 || len(sink.blacklisted) != notify.MaxBatchIDs {
		t.Errorf("%d and %d hints arrived, want %d of each but for one", len(sink.woken), len(sink.blacklisted), notify.MaxBatchIDs)
	}
	if len(sink.handed) != notify.MaxHandovers {
		t.Errorf("%d messages arrived, want %d", len(sink.handed), notify.MaxHandovers)
	}
}

// fullSeal holds as many messages as there may be, of one client, which take as many bytes as they may; their numbers are as
// long as numbers get.
func fullSeal(t *testing.T) []byte {
	t.Helper()
	handovers := make([]*store.Handover, notify.MaxHandovers)
	for i := range handovers {
		h := handover(clientID(0), i, "")
		h.Message.Encoded = make([]byte, notify.MaxHandoverBytes/notify.MaxHandovers-notify.HandoverSize(h))
		h.Message.Seq, h.After, h.Contact = math.MinInt64, math.MinInt64, time.UnixMicro(math.MinInt64)
		handovers[i] = h
	}
	sealed, err := notify.Seal(handoverKey(1), handovers)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestHandlerAsksForTheSecret(t *testing.T) { // G-17
	tests := []struct {
		token string
		want  bool
	}{
		{"", false},
		{"Bearer ", false},
		{"Bearer wrong", false},
		{"Basic s3cret", false},
		{"s3cret", false},
		{"Bearer s3cret and more", false},
		{"Bearer s3cret", true},
		{"bearer s3cret", true},
	}
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{Secret: "s3cret"}))
	paths := map[string]int{
		"/client/" + clientID(1).String(): http.StatusOK,
		"/farspeak/notify":                http.StatusNoContent,
		"/unknown":                        http.StatusNotFound,
	}
	for path, success := range paths {
		for _, test := range tests {
			want := http.StatusUnauthorized
			if test.want {
				want = success
			}
			status, _ := do(t, http.MethodPost, "http://"+address+path, test.token, nil)
			if status != want {
				t.Errorf("%s with %q: status %d, want %d", path, test.token, status, want)
			}
		}
	}
	if got := len(sink.wokenIDs()); got != 2 {
		t.Errorf("the sink was woken %d times, want 2", got)
	}
}

// slowSink holds up its caller, as a Sink must not.
type slowSink struct {
	*recorder
	entered, release chan struct{}
}

func (s slowSink) Wake(ids []identity.ClientID) {
	close(s.entered)
	<-s.release
	s.recorder.Wake(ids)
}

// A request that comes while the server stops reaches nobody who is gone. G-54
func TestHandlerRefusesLateRequests(t *testing.T) {
	sink := slowSink{newRecorder(), make(chan struct{}), make(chan struct{})}
	handler := notify.NewHandler(sink, notify.Config{})
	url := "http://" + serve(t, handler) + "/client/" + clientID(1).String()

	early := make(chan int)
	go func() {
		status, _ := do(t, http.MethodPost, url, "", nil)
		early <- status
	}()
	receive(t, sink.entered)
	closed := make(chan struct{})
	go func() {
		handler.Close()
		close(closed)
	}()
	select {
	case <-closed:
		t.Error("Close returned while the sink was being called")
	default:
	}
	close(sink.release)
	receive(t, closed)
	if status := receive(t, early); status != http.StatusOK {
		t.Errorf("the request under way got %d", status)
	}
	if status, _ := do(t, http.MethodPost, url, "", nil); status != http.StatusServiceUnavailable {
		t.Errorf("the late request got %d, want 503", status)
	}
	if got := len(sink.wokenIDs()); got != 1 {
		t.Errorf("the sink was woken %d times, want once", got)
	}
}

func FuzzHandler(f *testing.F) {
	id := clientID(7)
	body, err := proto.Marshal(&notifypb.Batch{ClientIds: [][]byte{id[:]}, BroadcastsChanged: true})
	if err != nil {
		f.Fatal(err)
	}
	handed := handoverProto("text")
	text := marshal(f, &notifypb.Handovers{Handovers: []*notifypb.Handover{handed}})
	f.Add("/farspeak/notify", body)
	f.Add("/farspeak/notify", marshal(f, &notifypb.Batch{
		ClientIds: [][]byte{id[:], handed.ClientId}, Sealed: sealText(f, handoverKey(1), text),
	}))
	f.Add("/client/"+id.String(), []byte(nil))
	f.Add("/client/nil", []byte{1})
	f.Add("//", []byte{})
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		sink := newRecorder()
		status := serveDirectly(notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(1)}), path, body)
		accepted := status == http.StatusOK || status == http.StatusNoContent || status == http.StatusAccepted
		if !accepted && len(sink.calls) > 0 {
			t.Errorf("status %d, and yet the sink was called", status)
		}
		for _, ids := range [][]identity.ClientID{sink.woken, sink.blacklisted} {
			if slices.Contains(ids, identity.ClientID{}) {
				t.Error("the sink got a nil ID")
			}
		}
		for _, h := range sink.handed {
			if status != http.StatusNoContent || slices.Contains(sink.woken, h.Message.ClientID) {
				t.Errorf("status %d, and a message for %v beside hints for %v", status, h.Message.ClientID, sink.woken)
			}
		}
		if status/100 != 2 && status/100 != 4 {
			t.Error(fmt.Errorf("status %d", status))
		}
	})
}
