package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/internal/database"
	"github.com/farspeak/farspeak/internal/config"
)

func (a *app) migrateCommand() *cobra.Command {
	var components string
	var status bool
	cmd := &cobra.Command{
		Use:   "migrate --components_config FILE",
		Short: "Bring the database's schema to the version of this program",
		Long: `Bring the schema of the database that a components file names to the version of this program, and print the version
before and after. It may run again, and while daemons are running.

On MySQL the daemons never change tables, so the user in the components file needs no right to; for this command name a
user who has it in a components file of its own. SQLite needs no such step: the daemons do it when they start.`,
		Example: `  fsctl migrate --components_config server.components.config --status
  fsctl migrate --components_config migrate.components.config`,
		Args: cobra.NoArgs,
		RunE: a.action(func(ctx context.Context, _ []string) error {
			return a.migrate(ctx, components, status)
		}),
	}
	cmd.Flags().StringVar(&components, "components_config", "", "components file that names the database (required)")
	cmd.Flags().BoolVar(&status, "status", false, "only print the version; change nothing")
	required(cmd, "components_config")
	return cmd
}

// schemaRow is the state of a schema; 0 is an empty database.
type schemaRow struct {
	Before int64 `json:"version_before"`
	After  int64 `json:"version_after"`
	Newest int64 `json:"newest_version"`
	Usable bool  `json:"usable"` // daemons of this release run on it
}

func (a *app) migrate(ctx context.Context, components string, statusOnly bool) error {
	file, err := config.Load(components)
	if err != nil {
		return err
	}
	store, err := file.Store()
	if err != nil {
		return err
	}
	for _, w := range store.Warnings {
		fmt.Fprintf(a.Err, "fsctl: warning: %v\n", w)
	}
	before, err := database.ReadSchema(ctx, store)
	if err != nil {
		return err
	}
	after := before
	if !statusOnly {
		if err := database.Migrate(ctx, store); err != nil {
			return err
		}
		if after, err = database.ReadSchema(ctx, store); err != nil {
			return err
		}
	}
	row := schemaRow{before.Version, after.Version, after.Newest, after.IsUsable()}
	return a.one(row,
		field("Version before", row.Before), field("Version after", row.After),
		field("Newest version", row.Newest), field("Usable", row.Usable))
}
