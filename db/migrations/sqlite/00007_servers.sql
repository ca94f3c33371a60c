-- The fs-servers that are up, by their heartbeats, and the TLS session ticket keys that they share.

-- +goose Up
CREATE TABLE servers (
  server_id    TEXT    NOT NULL PRIMARY KEY,
  address      TEXT    NOT NULL, -- where it takes notifications
  version      TEXT    NOT NULL,
  sessions     INTEGER NOT NULL,
  draining     INTEGER NOT NULL,
  heartbeat_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX servers_by_time ON servers (heartbeat_us);

CREATE TABLE ticket_keys (
  key_id     BLOB    NOT NULL PRIMARY KEY,
  created_us INTEGER NOT NULL,
  key_bytes  BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ticket_keys_by_time ON ticket_keys (created_us);
