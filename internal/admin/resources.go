package admin

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/store"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// FetchClientResourceUsageRecords returns what a client reported with start <= time of storage < end.
func (s *service) FetchClientResourceUsageRecords(ctx context.Context, request *serverpb.FetchClientResourceUsageRecordsRequest) (*serverpb.FetchClientResourceUsageRecordsResponse, error) {
	id, err := clientID(request.GetClientId())
	if err != nil {
		return nil, err
	}
	start, err := timestamp("start_timestamp", request.GetStartTimestamp())
	if err != nil {
		return nil, err
	}
	end, err := timestamp("end_timestamp", request.GetEndTimestamp())
	if err != nil {
		return nil, err
	}
	if start.After(end) {
		return nil, invalid("start_timestamp is after end_timestamp")
	}
	answer := &serverpb.FetchClientResourceUsageRecordsResponse{}
	if id.IsNil() {
		return answer, nil
	}
	records, err := s.store.FetchResourceUsage(ctx, id, wholeMicros(start), wholeMicros(end))
	if err != nil {
		return nil, err
	}
	room := room{s.cfg.MaxReplyBytes}
	for i := range records {
		record := usageProto(&records[i])
		if err := room.take(record); err != nil {
			return nil, err
		}
		answer.Records = append(answer.Records, record)
	}
	return answer, nil
}

func usageProto(u *store.ResourceUsage) *serverpb.ClientResourceUsageRecord {
	return &serverpb.ClientResourceUsageRecord{
		Scope:                 u.Scope,
		Pid:                   u.PID,
		ProcessStartTime:      u.ProcessStart,
		ClientTimestamp:       u.ClientTime,
		ServerTimestamp:       timestamppb.New(u.ServerTime),
		MeanUserCpuRate:       u.MeanUserCPU,
		MaxUserCpuRate:        u.MaxUserCPU,
		MeanSystemCpuRate:     u.MeanSystemCPU,
		MaxSystemCpuRate:      u.MaxSystemCPU,
		MeanResidentMemoryMib: u.MeanResidentMiB,
		MaxResidentMemoryMib:  u.MaxResidentMiB,
		ProcessTerminated:     u.Terminated,
		MeanNumFds:            u.MeanFDs,
		MaxNumFds:             u.MaxFDs,
	}
}
