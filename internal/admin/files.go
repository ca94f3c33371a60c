package admin

import (
	"bytes"
	"context"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// StoreFile makes or replaces a file that clients may download: content and time as one, and a new time even when the
// content is the same.
func (s *service) StoreFile(ctx context.Context, request *serverpb.StoreFileRequest) (*fspb.EmptyMessage, error) {
	if err := fileNames(request); err != nil {
		return nil, err
	}
	err := s.store.PutFile(ctx, request.GetServiceName(), request.GetFileName(), bytes.NewReader(request.GetData()))
	if err != nil {
		return nil, err
	}
	return &fspb.EmptyMessage{}, nil
}

// DeleteFile removes a file. One that does not exist is gone already.
func (s *service) DeleteFile(ctx context.Context, request *serverpb.DeleteFileRequest) (*fspb.EmptyMessage, error) {
	if err := fileNames(request); err != nil {
		return nil, err
	}
	if err := s.store.DeleteFile(ctx, request.GetServiceName(), request.GetFileName()); err != nil {
		return nil, err
	}
	return &fspb.EmptyMessage{}, nil
}

// fileNames checks that a file is named in full.
func fileNames(request interface {
	GetServiceName() string
	GetFileName() string
}) error {
	switch {
	case request.GetServiceName() == "":
		return invalid("file must have service_name")
	case request.GetFileName() == "":
		return invalid("file must have file_name")
	}
	return nil
}
