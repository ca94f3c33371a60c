package channel

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	channelpb "github.com/farspeak/farspeak/proto/fleetspeak/channel"
)

// System is the service name under which a process talks to its agent itself.
const System = "system"

// agent is the source of what an agent itself says on a socket.
const agent = "client"

// Types of the messages that stay between process and agent.
const (
	startupType   = "StartupData"
	heartbeatType = "Heartbeat"
	localAckType  = "LocalAck"
)

// Startup is the first message of a process: its own process ID and version. Bytes of the version that are no UTF-8 are
// replaced.
func Startup(pid int64, version string) *fspb.Message {
	return &fspb.Message{
		Destination: &fspb.Address{ServiceName: System},
		MessageType: startupType,
		Data:        pack(&channelpb.StartupData{Pid: pid, Version: strings.ToValidUTF8(version, "\uFFFD")}),
	}
}

// Heartbeat is what a process sends when it has nothing else to send.
func Heartbeat() *fspb.Message {
	return &fspb.Message{Destination: &fspb.Address{ServiceName: System}, MessageType: heartbeatType}
}

// LocalAck tells the process behind a socket that the server has the messages of these source message IDs.
func LocalAck(ids [][]byte) *fspb.Message {
	return &fspb.Message{
		Source:      &fspb.Address{ServiceName: agent}, // peers take it for granted
		MessageType: localAckType,
		Data:        pack(&fspb.MessageAckData{MessageIds: ids}),
	}
}

// pack serializes what cannot fail to be serialized.
func pack(m proto.Message) *anypb.Any {
	data := &anypb.Any{}
	_ = anypb.MarshalFrom(data, m, proto.MarshalOptions{}) // fails only on strings that are no UTF-8
	return data
}

// IsSystem reports whether a message of a process is for its agent itself.
func IsSystem(m *fspb.Message) bool { return m.GetDestination().GetServiceName() == System }

// IsStartup reports whether a message of a process is a StartupData, good or not.
func IsStartup(m *fspb.Message) bool { return IsSystem(m) && m.GetMessageType() == startupType }

// IsHeartbeat reports whether a message of a process is a heartbeat.
func IsHeartbeat(m *fspb.Message) bool { return IsSystem(m) && m.GetMessageType() == heartbeatType }

// ReadStartup returns what a StartupData says.
func ReadStartup(m *fspb.Message) (*channelpb.StartupData, error) {
	data := &channelpb.StartupData{}
	return data, unpack(m, data)
}

// IsLocalAck reports whether a message to a process is a LocalAck, good or not.
func IsLocalAck(m *fspb.Message) bool {
	return m.GetSource().GetServiceName() == agent && m.GetMessageType() == localAckType
}

// ReadLocalAck returns the source message IDs of a LocalAck.
func ReadLocalAck(m *fspb.Message) ([][]byte, error) {
	data := &fspb.MessageAckData{}
	err := unpack(m, data)
	return data.GetMessageIds(), err
}

func unpack(m *fspb.Message, data proto.Message) error {
	if m.GetData() == nil {
		return errors.New("the message has no data")
	}
	return m.GetData().UnmarshalTo(data)
}
