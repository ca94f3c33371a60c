package agentconfig

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
)

func publicKey(t *testing.T, bits int) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// A file of the original has the defaults, and the spool is on.
func TestSettings(t *testing.T) {
	dir := t.TempDir()
	head := "trusted_certs: " + newCertificate(t) + " server: 'a:1' filesystem_handler { configuration_directory: '" + dir + "'"
	withState := head + " state_file: '" + dir + "/state' } "
	key := write(t, dir, "key.pem", publicKey(t, 2048))
	defaults := Settings{SpoolDirectory: dir + "/state.spool"}
	for name, test := range map[string]struct {
		text string
		want Settings
		key  bool
	}{
		"original":      {withState, defaults, false},
		"without state": {head + " }", Settings{StatusDisabled: true}, false},
		"disabled":      {withState + "farspeak { spool_disabled: true spool_directory: '/none/x' status_disabled: true }", Settings{StatusDisabled: true}, false},
		"elsewhere":     {withState + "farspeak { spool_directory: '" + dir + "/s' }", Settings{SpoolDirectory: dir + "/s"}, false},
		"everything given": {withState + "farspeak { spool_max_bytes: 40000000 spool_fsync: SPOOL_FSYNC_INTERVAL spool_fsync_interval { seconds: 2 } deployment_public_key_file: '" + key + "' allow_text_services: true }",
			Settings{SpoolDirectory: dir + "/state.spool", SpoolMaxBytes: 40000000, SpoolFsync: settingspb.SpoolFsync_SPOOL_FSYNC_INTERVAL,
				SpoolFsyncInterval: 2 * time.Second, AllowTextServices: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, problems := parse("f", []byte(test.text), "linux")
			if err := problems.Err(); err != nil {
				t.Fatal(err)
			}
			got := c.Settings
			if (got.DeploymentKey != nil) != test.key {
				t.Errorf("key is %v", got.DeploymentKey)
			}
			got.DeploymentKey = nil
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestBrokenSettings(t *testing.T) {
	dir := t.TempDir()
	head := "trusted_certs: " + newCertificate(t) + " server: 'a:1' filesystem_handler { configuration_directory: '" + dir + "' state_file: '" + dir + "/state' } "
	weak := write(t, dir, "weak.pem", publicKey(t, 1024))
	junk := write(t, dir, "junk.pem", "junk")
	for text, want := range map[string]string{
		"spool_directory: '/none/x/spool'":                "farspeak.spool_directory",
		"spool_max_bytes: 1000":                           "farspeak.spool_max_bytes",
		"spool_fsync_interval { seconds: -1 }":            "farspeak.spool_fsync_interval",
		"deployment_public_key_file: '/none'":             "farspeak.deployment_public_key_file",
		"deployment_public_key_file: '" + weak + "'":      "1024 bits",
		"deployment_public_key_file: '" + junk + "'":      "no PEM",
		fmt.Sprintf("spool_max_bytes: %d", uint64(1)<<60): "farspeak.spool_max_bytes",
	} {
		_, problems := parse("f", []byte(head+"farspeak { "+text+" }"), "linux")
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
