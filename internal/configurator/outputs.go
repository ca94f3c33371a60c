package configurator

import (
	"fmt"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	configpb "github.com/farspeak/farspeak/proto/fleetspeak/config"
)

// platform is a system that clients run on.
type platform struct {
	field string // of the input, names the output
	path  func(*configpb.Config) string
	// persist chooses where the client keeps its state.
	persist func(*genericpb.Config)
}

var platforms = []platform{
	{
		"linux_client_configuration_file", (*configpb.Config).GetLinuxClientConfigurationFile,
		persistInFiles("/etc/fleetspeak-client", "/var/lib/misc/fleetspeak-client.state"),
	},
	{
		"darwin_client_configuration_file", (*configpb.Config).GetDarwinClientConfigurationFile,
		persistInFiles("/etc/fleetspeak-client", "/etc/fleetspeak-client/state"),
	},
	{
		"windows_client_configuration_file", (*configpb.Config).GetWindowsClientConfigurationFile,
		func(c *genericpb.Config) {
			c.PersistenceHandler = &genericpb.Config_RegistryHandler{RegistryHandler: &genericpb.RegistryHandler{
				ConfigurationKey: `HKEY_LOCAL_MACHINE\SOFTWARE\FleetspeakClient`,
			}}
		},
	},
}

func persistInFiles(directory, state string) func(*genericpb.Config) {
	return func(c *genericpb.Config) {
		c.PersistenceHandler = &genericpb.Config_FilesystemHandler{FilesystemHandler: &genericpb.FilesystemHandler{
			ConfigurationDirectory: directory,
			StateFile:              state,
		}}
	}
}

// writeComponents writes the components file: the template with the server's certificate and key in it.
func (g *generator) writeComponents(server *serverPair) error {
	components := proto.CloneOf(g.input.GetComponentsConfig())
	components.HttpsConfig.Certificates = string(server.certs)
	components.HttpsConfig.Key = string(server.key)
	path := g.input.GetServerComponentConfigurationFile()
	if err := g.writeText("server_component_configuration_file", path, components, keyMode); err != nil {
		return err
	}
	g.warnReadable(path)
	return nil
}

// writeClients writes the client files that are asked for.
func (g *generator) writeClients(ca *authority) error {
	for _, p := range platforms {
		path := p.path(g.input)
		if path == "" {
			continue
		}
		if err := g.writeText(p.field, path, g.clientConfig(ca, p), publicMode); err != nil {
			return err
		}
	}
	return nil
}

func (g *generator) clientConfig(ca *authority, p platform) *genericpb.Config {
	components := g.input.GetComponentsConfig()
	client := &genericpb.Config{
		TrustedCerts: string(ca.pem),
		Server:       g.input.GetPublicHostPort(),
		ServerName:   g.input.GetServerName(),
		// Always one, also when no label is required: the original's clients expect the line and ignore an empty label.
		ClientLabel: []string{components.GetRequiredLabel()},
		Streaming:   !components.GetHttpsConfig().GetDisableStreaming(),
		Proxy:       g.input.GetProxy(),
	}
	p.persist(client)
	return client
}

// writeText writes a message as text on one line.
func (g *generator) writeText(field, path string, m proto.Message, mode fileMode) error {
	text, err := prototext.Marshal(m)
	if err != nil {
		return fmt.Errorf("%s %s: %w", field, path, err)
	}
	return g.write(field, path, append(text, '\n'), mode)
}
