-- Broadcasts, and which client had which.

-- +goose Up
CREATE TABLE broadcasts (
  broadcast_id       BLOB    NOT NULL PRIMARY KEY,
  source             TEXT    NOT NULL,
  destination        TEXT    NOT NULL, -- service on the clients
  message_type       TEXT    NOT NULL,
  group_name         TEXT    NOT NULL,
  expiration_us      INTEGER NULL, -- NULL: never
  expiration_seconds INTEGER NULL, -- the same, as it was given
  expiration_nanos   INTEGER NULL,
  data               BLOB    NULL, -- serialized Any; NULL when absent
  message_limit      INTEGER NOT NULL, -- the largest integer: none; 0: disabled
  sent               INTEGER NOT NULL DEFAULT 0,
  created_us         INTEGER NOT NULL
) STRICT;
CREATE INDEX broadcasts_by_group ON broadcasts (group_name, source, destination);

CREATE TABLE broadcast_labels (
  broadcast_id BLOB NOT NULL,
  service      TEXT NOT NULL,
  label        TEXT NOT NULL,
  PRIMARY KEY (broadcast_id, service, label)
) STRICT, WITHOUT ROWID;

CREATE TABLE broadcast_sent (
  client_id    BLOB NOT NULL,
  broadcast_id BLOB NOT NULL,
  PRIMARY KEY (client_id, broadcast_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX broadcast_sent_by_broadcast ON broadcast_sent (broadcast_id, client_id);
