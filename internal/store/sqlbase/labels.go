package sqlbase

import (
	"context"
	"maps"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// reportedBy owns the labels that clients report of themselves.
	reportedBy = "client"

	// getLabels reads ranges of PRIMARY.
	getLabels = `SELECT client_id, service, label FROM client_labels {index PRIMARY} WHERE client_id IN ({list})
		ORDER BY client_id, service, label`

	// getReported reads ranges of PRIMARY.
	getReported = `SELECT client_id, label FROM client_labels {index PRIMARY} WHERE client_id IN ({list}) AND service = ?`

	insertLabels   = `INSERT INTO client_labels (client_id, service, label) VALUES {rows} {ignore service}`
	insertLabelRow = `(?, ?, ?)`

	// deleteLabels looks up rows in PRIMARY.
	deleteLabels = `{delete client_labels PRIMARY label} AND client_id = ? AND service = ?`

	// getServices reads ranges of PRIMARY.
	getServices = `SELECT client_id, name, signature FROM client_services {index PRIMARY} WHERE client_id IN ({list})
		ORDER BY client_id, name`

	insertServices   = `INSERT INTO client_services (client_id, name, signature) VALUES {rows} {upsert client_id, name: signature}`
	insertServiceRow = `(?, ?, ?)`

	// deleteServices looks up rows in PRIMARY.
	deleteServices = `{delete client_services PRIMARY name} AND client_id = ?`

	// existingClients reads ranges of PRIMARY; lockClients locks them too, in its order.
	existingClients = `SELECT client_id FROM clients {index PRIMARY} WHERE client_id IN ({list})`
	lockClients     = existingClients + ` ORDER BY client_id {lock}`
)

// SetClientInfo replaces what clients reported of themselves: their labels of service "client" and their services. Labels
// of other services stay. A client that is not known is store.ErrUnknownClient for its element; labels and services that
// do not fit, or are past store.MaxLabels, are left out. Given twice, the later one of a client counts (G-37). Past maxList
// clients it takes more than one transaction.
func (s *Store) SetClientInfo(ctx context.Context, infos []store.ClientInfo) (_ []error, err error) {
	defer s.op("SetClientInfo", &err)()
	errs := make([]error, len(infos))
	wanted := make(map[identity.ClientID]reported, len(infos))
	for _, info := range infos {
		wanted[info.ClientID] = wantedOf(info)
	}
	known := make(map[identity.ClientID]bool, len(infos))
	for chunk := range slices.Chunk(sortedClients(maps.Keys(wanted)), maxList) {
		// Most clients report at every start what they reported before: no write, and no lock.
		current, err := s.read().reported(ctx, chunk)
		if err != nil {
			return nil, err
		}
		var changed []identity.ClientID
		for _, id := range chunk {
			switch now, ok := current[id]; {
			case !ok: // errs says so
			case now.equal(wanted[id]):
				known[id] = true
			default:
				known[id] = true
				changed = append(changed, id)
			}
		}
		if len(changed) > 0 {
			if err := s.write(ctx, func(t session) error { return t.setReported(ctx, changed, wanted) }); err != nil {
				return nil, err
			}
		}
	}
	for i, info := range infos {
		if !known[info.ClientID] {
			errs[i] = store.ErrUnknownClient
		}
	}
	return errs, nil
}

// ListClientServices returns the services that a client reported (G-47).
func (s *Store) ListClientServices(ctx context.Context, id identity.ClientID) (services []store.ClientService, err error) {
	defer s.op("ListClientServices", &err)()
	current, err := s.read().reportedServices(ctx, []identity.ClientID{id})
	if err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(current[id]) {
		services = append(services, store.ClientService{Name: name, Signature: []byte(current[id][name])})
	}
	return services, nil
}

// reported is what a client said of itself.
type reported struct {
	labels   map[string]bool
	services map[string]string // name to signature
}

func wantedOf(info store.ClientInfo) reported {
	r := reported{labels: fittingLabels(info.Labels), services: make(map[string]string)}
	for _, service := range info.Services {
		if len(r.services) == store.MaxLabels {
			break
		}
		if service.Name != "" && fitsName(service.Name) && len(service.Signature) <= maxSignature {
			r.services[service.Name] = string(service.Signature)
		}
	}
	return r
}

func fittingLabels(labels []string) map[string]bool {
	set := make(map[string]bool)
	for _, label := range labels {
		if len(set) == store.MaxLabels {
			break
		}
		if label != "" && fitsName(label) {
			set[label] = true
		}
	}
	return set
}

func (r reported) equal(other reported) bool {
	return maps.Equal(r.labels, other.labels) && maps.Equal(r.services, other.services)
}

// reported reads what is stored for the clients that exist.
func (t session) reported(ctx context.Context, ids []identity.ClientID) (map[identity.ClientID]reported, error) {
	current := make(map[identity.ClientID]reported, len(ids))
	services, err := t.reportedServices(ctx, ids)
	if err != nil {
		return nil, err
	}
	known, err := t.clientIDs(ctx, t.s.sql(existingClients, len(ids)), clientArgs(ids)...)
	if err != nil {
		return nil, err
	}
	for _, id := range known {
		current[id] = reported{labels: make(map[string]bool), services: services[id]}
	}
	err = t.query(ctx, t.s.sql(getReported, len(ids)), append(clientArgs(ids), reportedBy), func(r row) error {
		var id identity.ClientID
		var label string
		err := r.Scan(fixed(id[:]), &label)
		if now, ok := current[id]; ok {
			now.labels[label] = true
		}
		return err
	})
	return current, err
}

func (t session) reportedServices(ctx context.Context,
	ids []identity.ClientID) (map[identity.ClientID]map[string]string, error) {
	services := make(map[identity.ClientID]map[string]string)
	err := t.query(ctx, t.s.sql(getServices, len(ids)), clientArgs(ids), func(r row) error {
		var id identity.ClientID
		var name, signature string
		err := r.Scan(fixed(id[:]), &name, &signature)
		if services[id] == nil {
			services[id] = make(map[string]string)
		}
		services[id][name] = signature
		return err
	})
	return services, err
}

// setReported makes what is stored for clients equal to what is wanted. It locks their rows, so that two reports of one
// client do not mix.
func (t session) setReported(ctx context.Context, ids []identity.ClientID, wanted map[identity.ClientID]reported) error {
	_, err := t.clientIDs(ctx, t.s.sql(lockClients, len(ids)), clientArgs(ids)...)
	if err != nil {
		return err
	}
	current, err := t.reported(ctx, ids)
	if err != nil {
		return err
	}
	var labels, services [][]any
	for _, id := range ids {
		now, ok := current[id]
		if !ok {
			continue
		}
		if err := t.dropReported(ctx, id, now, wanted[id]); err != nil {
			return err
		}
		for _, label := range missing(wanted[id].labels, now.labels) {
			labels = append(labels, []any{id[:], reportedBy, label})
		}
		for _, name := range sortedKeys(wanted[id].services) {
			if signature, ok := now.services[name]; !ok || signature != wanted[id].services[name] {
				services = append(services, []any{id[:], name, []byte(wanted[id].services[name])})
			}
		}
	}
	if _, err := t.insert(ctx, insertLabels, insertLabelRow, labels); err != nil {
		return err
	}
	_, err = t.insert(ctx, insertServices, insertServiceRow, services)
	return err
}

func (t session) dropReported(ctx context.Context, id identity.ClientID, now, wanted reported) error {
	if gone := missing(now.labels, wanted.labels); len(gone) > 0 {
		args := append(stringArgs(gone), id[:], reportedBy)
		if _, err := t.exec(ctx, t.s.sql(deleteLabels, len(gone)), args...); err != nil {
			return err
		}
	}
	if gone := missing(now.services, wanted.services); len(gone) > 0 {
		args := append(stringArgs(gone), id[:])
		if _, err := t.exec(ctx, t.s.sql(deleteServices, len(gone)), args...); err != nil {
			return err
		}
	}
	return nil
}

// missing returns the keys of a that are not in b, in order.
func missing[V, W any](a map[string]V, b map[string]W) []string {
	var keys []string
	for _, key := range sortedKeys(a) {
		if _, ok := b[key]; !ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// addLabels reads the labels of clients into them.
func (t session) addLabels(ctx context.Context, clients map[identity.ClientID]*store.Client) error {
	for chunk := range slices.Chunk(sortedClients(maps.Keys(clients)), maxList) {
		err := t.query(ctx, t.s.sql(getLabels, len(chunk)), clientArgs(chunk), func(r row) error {
			var id identity.ClientID
			var label store.Label
			if err := r.Scan(fixed(id[:]), &label.Service, &label.Label); err != nil {
				return err
			}
			clients[id].Labels = append(clients[id].Labels, label)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
