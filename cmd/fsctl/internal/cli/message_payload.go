package cli

import (
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/payload"
)

// payloadFlags say what a message is about and what it carries.
type payloadFlags struct {
	cmd        *cobra.Command
	kind       string
	typeURL    string
	dataFile   string
	json       string
	stdinArgs  []string
	stdinInput string
}

func (p *payloadFlags) register(cmd *cobra.Command) {
	p.cmd = cmd
	f := cmd.Flags()
	f.StringVar(&p.kind, "type", "", "message type, by which the service tells messages apart (default "+payload.StdinMessageType+" with --stdin_args or --stdin_input)")
	f.StringVar(&p.typeURL, "type_url", "", "type of the payload, for example fleetspeak.DieRequest")
	f.StringVar(&p.dataFile, "data_file", "", `file with the serialized payload; "-" is standard input`)
	f.StringVar(&p.json, "json", "", `payload as JSON, or @FILE; its type is --type_url or in its field "@type"`)
	f.StringArrayVar(&p.stdinArgs, "stdin_args", nil, "argument for the command of a Stdin service; again for more")
	f.StringVar(&p.stdinInput, "stdin_input", "", `file with the standard input for the command of a Stdin service; "-" is standard input`)
	cmd.MarkFlagsMutuallyExclusive("data_file", "json", "stdin_args")
	cmd.MarkFlagsMutuallyExclusive("data_file", "json", "stdin_input")
	cmd.MarkFlagsMutuallyExclusive("type_url", "stdin_args")
	cmd.MarkFlagsMutuallyExclusive("type_url", "stdin_input")
}

func (p *payloadFlags) changed(flag string) bool { return p.cmd.Flags().Changed(flag) }

// build makes message type and payload; args are the words of the command line. Its errors are mistakes of the user.
func (p *payloadFlags) build(a *app, args []string) (kind string, data *anypb.Any, err error) {
	if slices.Contains(args, "-") && (p.dataFile == "-" || p.stdinInput == "-") {
		return "", nil, usagef("client IDs and payload cannot both come from standard input: put one of them in a file")
	}
	switch {
	case p.changed("stdin_args") || p.changed("stdin_input"):
		return p.buildStdin(a)
	case p.changed("data_file"):
		content, err := a.readInput(p.dataFile)
		if err != nil {
			return "", nil, err
		}
		data, err = payload.Raw(p.typeURL, content)
		return p.kind, data, asUsage(err)
	case p.changed("json"):
		text := []byte(p.json)
		if path, ok := strings.CutPrefix(p.json, "@"); ok {
			if text, err = os.ReadFile(path); err != nil {
				return "", nil, err
			}
		}
		data, err = payload.JSON(p.typeURL, text)
		return p.kind, data, asUsage(err)
	case p.typeURL != "":
		data, err = payload.Raw(p.typeURL, nil) // an empty message of that type
		return p.kind, data, asUsage(err)
	}
	return p.kind, nil, nil
}

func (p *payloadFlags) buildStdin(a *app) (kind string, data *anypb.Any, err error) {
	kind = p.kind
	if kind == "" {
		kind = payload.StdinMessageType
	}
	var input []byte
	if p.stdinInput != "" {
		if input, err = a.readInput(p.stdinInput); err != nil {
			return "", nil, err
		}
	}
	data, err = payload.Stdin(p.stdinArgs, input)
	return kind, data, err
}

// readInput reads a file of the user's choice, or standard input for "-".
func (a *app) readInput(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(a.In)
	}
	return os.ReadFile(path)
}

func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}
