package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/internal/config"
)

// adminVariable is the environment variable that stands in for --admin.
const adminVariable = "FSCTL_ADMIN"

// connectionFlags are the flags of all commands that talk to fs-admin.
type connectionFlags struct {
	admin      string
	components string
	options    adminapi.Options
}

func (c *connectionFlags) register(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.admin, "admin", "", "address of fs-admin, host:port or unix:PATH"+
		" (default $"+adminVariable+", else "+adminapi.DefaultAddress+")")
	flags.StringVar(&c.components, "components_config", "", "take address, TLS and token of fs-admin from this components file")
	flags.BoolVar(&c.options.TLS, "tls", false, "use TLS, trusting the system's authorities")
	flags.StringVar(&c.options.CAFile, "ca_file", "", "use TLS, trusting the authorities in this PEM file")
	flags.StringVar(&c.options.CertFile, "cert_file", "", "PEM certificate to present to fs-admin")
	flags.StringVar(&c.options.KeyFile, "key_file", "", "PEM private key of --cert_file")
	flags.StringVar(&c.options.ServerName, "server_name", "", "name in the certificate of fs-admin, when it is not the host of its address")
	flags.StringVar(&c.options.TokenFile, "token_file", "", "file with the token that fs-admin asks for")
	flags.DurationVar(&c.options.Timeout, "timeout", 30*time.Second, "how long one call may take")
	cmd.MarkFlagsMutuallyExclusive("admin", "components_config")
}

// dial prepares the connection that the flags describe.
func (c *connectionFlags) dial() (*adminapi.Client, error) {
	options := c.options
	if options.Timeout <= 0 {
		return nil, usagef("--timeout %v: want a time above zero", options.Timeout)
	}
	switch {
	case c.components != "":
		if err := c.fromComponents(&options); err != nil {
			return nil, err
		}
	case c.admin != "":
		options.Address = c.admin
	case os.Getenv(adminVariable) != "":
		options.Address = os.Getenv(adminVariable)
	default:
		options.Address = adminapi.DefaultAddress
	}
	return adminapi.Dial(options)
}

// fromComponents fills in what fs-admin's own configuration says; flags win.
func (c *connectionFlags) fromComponents(options *adminapi.Options) error {
	file, err := config.Load(c.components)
	if err != nil {
		return err
	}
	admin, err := file.Admin()
	if err != nil {
		return err
	}
	options.Address = admin.Address
	if admin.Network == "unix" {
		options.Address = "unix:" + admin.Address
	}
	if options.TokenFile == "" {
		options.Token = admin.Token.Reveal()
	}
	if admin.TLS != nil {
		options.TLS = true
		options.Pinned = leaf(admin.TLS)
	}
	return nil
}

// leaf returns the DER of the certificate that fs-admin presents.
func leaf(config *tls.Config) []byte {
	if len(config.Certificates) == 0 || len(config.Certificates[0].Certificate) == 0 {
		return nil
	}
	return config.Certificates[0].Certificate[0]
}

// call wraps work that needs fs-admin.
func (a *app) call(work func(ctx context.Context, api *adminapi.Client, args []string) error) func(*cobra.Command, []string) error {
	return a.action(func(ctx context.Context, args []string) error {
		api, err := a.connection.dial()
		if err != nil {
			return err
		}
		defer api.Close()
		if err := api.Explain(work(ctx, api, args)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted: %w", err)
		}
		return nil
	})
}
