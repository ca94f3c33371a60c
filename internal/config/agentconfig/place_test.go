package agentconfig

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/winreg"
	"github.com/farspeak/farspeak/internal/winreg/regtest"
)

const fleetspeakKey = `HKEY_LOCAL_MACHINE\SOFTWARE\FleetspeakClient`

// newRegistry has values, by key below fleetspeakKey and name; a nil stands for one that is no text.
func newRegistry(t *testing.T, values map[string]map[string]any) *Config {
	t.Helper()
	r := regtest.New()
	for below, named := range values {
		k, err := r.Create(winreg.Join(fleetspeakKey, below))
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range named {
			if path, is := v.(string); is {
				err = k.SetText(name, path)
			} else {
				err = k.SetBinary(name, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return &Config{RegistryKey: fleetspeakKey, Registry: r}
}

func TestRegistryHandler(t *testing.T) {
	dir := t.TempDir()
	head := "trusted_certs: " + newCertificate(t) + "\nserver: 'a:1'\n" +
		`registry_handler { configuration_key: "HKEY_LOCAL_MACHINE\\SOFTWARE\\FleetspeakClient" }` + "\n"
	c, problems := parse("f", []byte(head), "windows")
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if c.RegistryKey != fleetspeakKey || c.Registry == nil || c.StateFile != "" || c.Directory != "" || !c.Settings.StatusDisabled ||
		len(problems) != 1 || problems[0].Field != "farspeak.spool_directory" {
		t.Errorf("got %+v, %v", c, problems)
	}
	spool := filepath.Join(dir, "spool")
	for settings, want := range map[string]string{
		"farspeak { spool_disabled: true }":                    "",
		fmt.Sprintf("farspeak { spool_directory: %q }", spool): spool,
	} {
		c, problems := parse("f", []byte(head+settings), "windows")
		if len(problems) != 0 || c.Settings.SpoolDirectory != want || c.Settings.StatusDisabled != (want == "") {
			t.Errorf("%s: %+v, %v", settings, c.Settings, problems)
		}
	}
}

func TestCommunicatorInTheRegistry(t *testing.T) {
	file := write(t, t.TempDir(), "anything.cfg", "max_poll_delay_seconds: 7 walrus: 1")
	for name, test := range map[string]struct {
		values map[string]map[string]any
		want   time.Duration
		fault  string
	}{
		"value":    {map[string]map[string]any{"": {"Communicator": file}}, 7 * time.Second, ""},
		"no value": {map[string]map[string]any{"": {}}, 5 * time.Minute, ""},
		"no key":   {nil, 5 * time.Minute, ""},
		"no file":  {map[string]map[string]any{"": {"communicator": file + "x"}}, 5 * time.Minute, file + "x: cannot be read"},
		"no text":  {map[string]map[string]any{"": {"communicator": nil}}, 5 * time.Minute, fleetspeakKey + `\communicator: the value is not a string`},
	} {
		got, err := newRegistry(t, test.values).Communicator()
		if got.MaxPollDelay != test.want || (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestServicesInTheRegistry(t *testing.T) {
	dir := t.TempDir()
	junk := write(t, dir, "junk", "\xff\xff")
	c := newRegistry(t, map[string]map[string]any{
		"services": {
			"b": write(t, dir, "one", signed(t, "only-signed")), "a": write(t, dir, "two", signed(t, "both")), "c": junk, "d": nil,
		},
		"TextServices": {"x": write(t, dir, "three", "name: 'both' factory: 'NOOP'"), "y": filepath.Join(dir, "none")},
		"other":        {"z": junk},
	})
	services, problems := c.Services()
	var got []string
	for _, s := range services {
		got = append(got, fmt.Sprintf("%s %q %s", s.Config.GetName(), s.Signature, filepath.Base(s.Path)))
	}
	if want := []string{`only-signed "sig" one`, `both "" three`}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	var about []string
	for _, p := range problems {
		about = append(about, strings.TrimPrefix(p.File, dir+string(filepath.Separator)))
	}
	if want := []string{fleetspeakKey + `\services\d`, "junk", "three", "none"}; !slices.Equal(about, want) || problems.Err() != nil {
		t.Errorf("problems are %v", problems)
	}
}

func TestKeysOfServicesAreMade(t *testing.T) {
	r := regtest.New()
	c := &Config{RegistryKey: fleetspeakKey, Registry: r}
	if services, problems := c.Services(); len(services)+len(problems) != 0 {
		t.Errorf("without keys: %v, %v", services, problems)
	}
	if err := c.PrepareRegistry(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"services", "textservices"} {
		if _, err := r.View(winreg.Join(fleetspeakKey, name)); err != nil {
			t.Error(err)
		}
	}
	r.Break(errors.New("access is denied"))
	if err := c.PrepareRegistry(); err == nil || !strings.Contains(err.Error(), "registry_handler.configuration_key "+fleetspeakKey) {
		t.Errorf("got %v", err)
	}
	if err := (&Config{Directory: t.TempDir(), Registry: winreg.System()}).PrepareRegistry(); err != nil {
		t.Errorf("without a registry: %v", err)
	}
}
