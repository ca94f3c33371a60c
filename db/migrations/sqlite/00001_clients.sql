-- Clients, their labels and their services.

-- +goose Up
CREATE TABLE clients (
  client_id            BLOB    NOT NULL PRIMARY KEY,
  client_key           BLOB    NOT NULL, -- public key, PKIX DER
  blacklisted          INTEGER NOT NULL DEFAULT 0,
  first_contact_us     INTEGER NOT NULL,
  last_contact_us      INTEGER NOT NULL,
  last_contact_address TEXT    NOT NULL,
  clock_seconds        INTEGER NULL,     -- the clock of the client in its last contact
  clock_nanos          INTEGER NULL,
  streaming_to         TEXT    NOT NULL DEFAULT '' -- address of the server that holds its session
) STRICT, WITHOUT ROWID;
CREATE INDEX clients_by_last_contact ON clients (last_contact_us);

CREATE TABLE client_labels (
  client_id BLOB NOT NULL,
  service   TEXT NOT NULL, -- owner of the label; "client" for what the client reports
  label     TEXT NOT NULL,
  PRIMARY KEY (client_id, service, label)
) STRICT, WITHOUT ROWID;
CREATE INDEX client_labels_by_label ON client_labels (service, label, client_id);

CREATE TABLE client_services (
  client_id BLOB NOT NULL,
  name      TEXT NOT NULL,
  signature BLOB NOT NULL, -- empty when its configuration is unsigned
  PRIMARY KEY (client_id, name)
) STRICT, WITHOUT ROWID;
