package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/golang/glog"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Messages of our server to the agent itself, which the original has not. They carry a SignedClientServiceConfig and a
// RemoveServiceData, and are done when the next start will do the same.
const (
	typeInstallService = "InstallService"
	typeRemoveService  = "RemoveService"
)

// Deployer decides which services the server may install, and remembers them for the next start.
type Deployer interface {
	// Check reads a signed configuration, and refuses it unless those signed it who may deploy.
	Check(*fspb.SignedClientServiceConfig) (Installation, error)
	// Keep has the next start install the service, whatever it would have installed under that name.
	Keep(name string, signed *fspb.SignedClientServiceConfig) error
	// Forget has the next start leave the service out. A service that is not deployed this way is an error.
	Forget(name string) error
}

var errNotTheSystem = errors.New("only the server's service \"system\" deploys services")

// deployable says whether a message may change the services. Without a Deployer its type is as unknown as to the original.
func (a *Agent) deployable(m *fspb.Message) error {
	if a.cfg.Deployer == nil {
		return unknownType(m)
	}
	if from := m.GetSource(); from.GetServiceName() != systemService || len(from.GetClientId()) > 0 {
		return errNotTheSystem
	}
	return nil
}

func (a actions) installService(ctx context.Context, m *fspb.Message) error {
	if err := a.deployable(m); err != nil {
		return err
	}
	signed := &fspb.SignedClientServiceConfig{}
	if err := unpack(m, signed); err != nil {
		return err
	}
	in, err := a.cfg.Deployer.Check(signed)
	if err != nil {
		return err
	}
	if err := a.Install(ctx, in); err != nil {
		return err
	}
	name := in.Config.Name
	if err := a.cfg.Deployer.Keep(name, signed); err != nil {
		return fmt.Errorf("service %q runs, and will not at the next start: %w", name, err)
	}
	glog.Infof("service %s was installed by the server", name)
	return nil
}

func (a actions) removeService(ctx context.Context, m *fspb.Message) error {
	if err := a.deployable(m); err != nil {
		return err
	}
	request := &fspb.RemoveServiceData{}
	if err := unpack(m, request); err != nil {
		return err
	}
	if err := legalServiceName(request.Name); err != nil {
		return err
	}
	if err := a.cfg.Deployer.Forget(request.Name); err != nil {
		return err
	}
	if err := a.Remove(ctx, request.Name); err != nil && !errors.Is(err, ErrServiceUnavailable) {
		return err
	}
	glog.Infof("service %s was removed by the server", request.Name)
	return nil
}
