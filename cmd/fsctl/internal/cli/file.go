package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func (a *app) fileCommand() *cobra.Command {
	return a.newAPIGroup("file", "Store files that clients download", a.filePutCommand(), a.fileDeleteCommand())
}

// fileRow is a stored file.
type fileRow struct {
	Service string `json:"service_name"`
	Name    string `json:"file_name"`
	Size    int    `json:"size"`
}

func (a *app) filePutCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "put SERVICE NAME FILE",
		Short:   `Store a local file ("-" is standard input) for the clients' service, in place of one of that name`,
		Example: `  fsctl file put Probe rules.txt ./rules.txt`,
		Args:    cobra.ExactArgs(3),
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			content, err := a.readInput(args[2])
			if err != nil {
				return err
			}
			row := fileRow{args[0], args[1], len(content)}
			request := &serverpb.StoreFileRequest{ServiceName: row.Service, FileName: row.Name, Data: content}
			if _, err := api.Admin.StoreFile(ctx, request); err != nil {
				return err
			}
			return a.one(row, field("Service", row.Service), field("Name", row.Name), field("Bytes", row.Size))
		}),
	}
}

func (a *app) fileDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "delete SERVICE NAME",
		Short:             "Delete a stored file; one that does not exist is no error",
		Example:           `  fsctl file delete Probe rules.txt`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			_, err := api.Admin.DeleteFile(ctx, &serverpb.DeleteFileRequest{ServiceName: args[0], FileName: args[1]})
			return err
		}),
	}
}
