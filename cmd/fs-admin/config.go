package main

import (
	"cmp"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/notify"
)

// overrides are addresses from the command line. They win over the file, where several fs-admins of one machine share it.
type overrides struct {
	stats, health string
}

// settings are the parts of the configuration file that fs-admin lives by.
type settings struct {
	admin config.Admin
	store config.Store
}

// load reads the file and logs nothing: the warnings are in what it returns.
func load(path string, o overrides) (settings, error) {
	file, err := config.Load(path)
	if err != nil {
		return settings{}, err
	}
	var s settings
	if s.admin, err = file.Admin(); err != nil {
		return settings{}, err
	}
	s.admin.StatsAddress = cmp.Or(o.stats, s.admin.StatsAddress)
	s.admin.HealthAddress = cmp.Or(o.health, s.admin.HealthAddress)
	s.store, err = file.Store()
	return s, err
}

// adminConfig maps the settings onto the server's Config; what is opened at start is left out.
func (s settings) adminConfig() admin.Config {
	a := s.admin
	return admin.Config{
		TLS: a.TLS, Token: a.Token.Reveal(), Reflection: a.Reflection, MaxMessageBytes: a.MaxMessageBytes,
		MaxBacklog: a.BacklogMaxMessages,
	}
}

// notifierConfig does the same for the notifications that fs-admin sends.
func (s settings) notifierConfig() notify.Config {
	n := s.admin.Notifier
	return notify.Config{Secret: n.Secret.Reveal(), Timeout: n.Timeout, Disabled: n.Disabled}
}
