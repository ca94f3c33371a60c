package admin

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/golang/glog"
	"google.golang.org/grpc/credentials"

	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Bounds of what one line of the audit log quotes from a request.
const (
	maxAuditIDs  = 8
	maxAuditText = 128 // bytes, of an ID in hex or of a name
)

// audited is the subject of a request that leaves a line in the audit log. Submitting messages is what backends do all day;
// their lines, which cost more than some of the work, come at -v=1 only.
func audited(request any) (text string, ok bool) {
	if _, message := request.(*fspb.Message); message && !bool(glog.V(1)) {
		return "", false
	}
	return subject(request)
}

// subject says for the audit log what a request is about: IDs and names, never payloads. ok is false for requests that
// change nothing.
func subject(request any) (text string, ok bool) {
	switch r := request.(type) {
	case *fspb.Message:
		return fmt.Sprintf("message=%s client=%s source=%s destination=%s", hexID(r.GetMessageId()),
			hexID(r.GetDestination().GetClientId()), quoted(r.GetSource().GetServiceName()),
			quoted(r.GetDestination().GetServiceName())), true
	case *serverpb.CreateBroadcastRequest:
		return fmt.Sprintf("broadcast=%s source=%s limit=%d", hexID(r.GetBroadcast().GetBroadcastId()),
			quoted(r.GetBroadcast().GetSource().GetServiceName()), r.GetLimit()), true
	case *serverpb.DisableBroadcastsRequest:
		return "broadcasts=" + hexIDs(r.GetBroadcastIds()), true
	case *serverpb.DeletePendingMessagesRequest:
		return "clients=" + hexIDs(r.GetClientIds()), true
	case *serverpb.BlacklistClientRequest:
		return "client=" + hexID(r.GetClientId()), true
	case *serverpb.StoreFileRequest:
		return fmt.Sprintf("service=%s file=%s bytes=%d", quoted(r.GetServiceName()), quoted(r.GetFileName()), len(r.GetData())), true
	case *serverpb.DeleteFileRequest:
		return fmt.Sprintf("service=%s file=%s", quoted(r.GetServiceName()), quoted(r.GetFileName())), true
	case *controlpb.RetryDeadLettersRequest:
		return fmt.Sprintf("service=%s messages=%s", quoted(r.GetService()), hexIDs(r.GetMessageIds())), true
	case *controlpb.DeleteDeadLettersRequest:
		return fmt.Sprintf("service=%s messages=%s", quoted(r.GetService()), hexIDs(r.GetMessageIds())), true
	}
	return "", false
}

// hexID is an ID of whatever length a caller gave it.
func hexID(id []byte) string {
	if len(id) == 0 {
		return "nil"
	}
	if len(id) > maxAuditText/2 {
		return fmt.Sprintf("%x…", id[:maxAuditText/2])
	}
	return fmt.Sprintf("%x", id)
}

func hexIDs(ids [][]byte) string {
	texts := make([]string, 0, maxAuditIDs)
	for _, id := range ids[:min(len(ids), maxAuditIDs)] {
		texts = append(texts, hexID(id))
	}
	list := "[" + strings.Join(texts, ",") + "]"
	if more := len(ids) - maxAuditIDs; more > 0 {
		list += fmt.Sprintf("+%d", more)
	}
	return list
}

func quoted(text string) string { return fmt.Sprintf("%q", cut(text)) }

// cut shortens text without splitting a character.
func cut(text string) string {
	if len(text) <= maxAuditText {
		return text
	}
	end := maxAuditText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// certificateName is the name in a verified certificate of the caller, empty without one.
func certificateName(info credentials.AuthInfo) string {
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok || len(tlsInfo.State.VerifiedChains) == 0 {
		return ""
	}
	return cut(tlsInfo.State.VerifiedChains[0][0].Subject.String())
}
