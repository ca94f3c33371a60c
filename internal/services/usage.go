package services

import (
	"context"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/store"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

const mebibyte = 1 << 20

// resourceUsage stores one report. A report without numbers or without the start of its process is taken as it is (G-01,
// G-26).
func (s *system) resourceUsage(ctx context.Context, from sender, d *monitoringpb.ResourceUsageData) error {
	record, err := usageRecord(from, d)
	if err != nil {
		return Permanent(err)
	}
	result, err := s.writes.usage.Do(ctx, record)
	switch {
	case err != nil:
		return err
	case errors.Is(result, store.ErrUnknownClient), errors.Is(result, store.ErrInvalid):
		return Permanent(result)
	case result != nil:
		return result
	}
	s.metrics.used(from, d)
	return nil
}

// usageRecord checks what a client reports and gives it the form in which it is stored.
func usageRecord(from sender, d *monitoringpb.ResourceUsageData) (store.ResourceUsage, error) {
	u := d.GetResourceUsage()
	switch {
	case utf8.RuneCountInString(d.GetScope()) > store.MaxName:
		return store.ResourceUsage{}, fmt.Errorf("scope of %d bytes, at most %d characters", len(d.GetScope()), store.MaxName)
	case d.GetDataTimestamp() == nil:
		return store.ResourceUsage{}, errors.New("data_timestamp is missing")
	}
	if err := checkTime("data_timestamp", d.GetDataTimestamp()); err != nil {
		return store.ResourceUsage{}, err
	}
	if err := checkTime("process_start_time", d.GetProcessStartTime()); err != nil {
		return store.ResourceUsage{}, err
	}
	if err := checkFinite(u); err != nil {
		return store.ResourceUsage{}, err
	}
	return store.ResourceUsage{
		ClientID:        from.id,
		Scope:           d.GetScope(),
		PID:             d.GetPid(),
		ProcessStart:    d.GetProcessStartTime(),
		ClientTime:      d.GetDataTimestamp(),
		MeanUserCPU:     float32(u.GetMeanUserCpuRate()),
		MaxUserCPU:      float32(u.GetMaxUserCpuRate()),
		MeanSystemCPU:   float32(u.GetMeanSystemCpuRate()),
		MaxSystemCPU:    float32(u.GetMaxSystemCpuRate()),
		MeanResidentMiB: whole(u.GetMeanResidentMemory() / mebibyte),
		MaxResidentMiB:  whole(float64(u.GetMaxResidentMemory()) / mebibyte),
		Terminated:      d.GetProcessTerminated(),
		MeanFDs:         whole(u.GetMeanNumFds()),
		MaxFDs:          u.GetMaxNumFds(),
	}, nil
}

// checkTime accepts an absent time.
func checkTime(field string, t *timestamppb.Timestamp) error {
	if t == nil {
		return nil
	}
	if err := t.CheckValid(); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// checkFinite refuses numbers that no database column holds.
func checkFinite(u *monitoringpb.AggregatedResourceUsage) error {
	for _, f := range []float64{
		u.GetMeanUserCpuRate(), u.GetMaxUserCpuRate(), u.GetMeanSystemCpuRate(), u.GetMaxSystemCpuRate(),
		u.GetMeanResidentMemory(), u.GetMeanNumFds(),
	} {
		if math.IsNaN(f) || math.Abs(f) > math.MaxFloat32 {
			return errors.New("resource_usage has a number that is not finite")
		}
	}
	return nil
}

// whole cuts the fraction off and keeps the rest within an int32.
func whole(f float64) int32 { return int32(min(max(f, math.MinInt32), math.MaxInt32)) }
