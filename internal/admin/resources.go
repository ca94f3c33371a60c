package admin

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
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
	if err := s.enterBulk(ctx); err != nil {
		return nil, err
	}
	room := room{s.cfg.MaxReplyBytes}
	err = s.eachUsage(ctx, id, wholeMicros(start), wholeMicros(end), func(u *store.ResourceUsage) error {
		record := usageProto(u)
		answer.Records = append(answer.Records, record)
		return room.take(record)
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// eachUsage visits the reports of a client with start <= time of storage < end.
func (s *service) eachUsage(ctx context.Context, id identity.ClientID, start, end time.Time,
	visit func(*store.ResourceUsage) error) error {
	after := int64(-1) // before all reports of the moment
	for {
		page, err := s.store.FetchResourceUsage(ctx, id, start, end, after, pageSize)
		if err != nil {
			return err
		}
		for i := range page {
			if err := visit(&page[i]); err != nil {
				return err
			}
		}
		if len(page) < pageSize {
			return nil
		}
		last := page[len(page)-1]
		start, after = last.ServerTime, last.Nonce
	}
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
