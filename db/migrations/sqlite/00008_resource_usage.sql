-- What clients report of the resources that they and their services use. Rows leave by their age.

-- +goose Up
CREATE TABLE resource_usage (
  client_id             BLOB    NOT NULL,
  server_us             INTEGER NOT NULL,
  nonce                 INTEGER NOT NULL, -- random; two reports may come at one time
  scope                 TEXT    NOT NULL,
  pid                   INTEGER NOT NULL,
  process_start_seconds INTEGER NULL,
  process_start_nanos   INTEGER NULL,
  client_seconds        INTEGER NULL, -- when the client made the report
  client_nanos          INTEGER NULL,
  mean_user_cpu         REAL    NOT NULL, -- ms/s, as the other rates
  max_user_cpu          REAL    NOT NULL,
  mean_system_cpu       REAL    NOT NULL,
  max_system_cpu        REAL    NOT NULL,
  mean_resident_mib     INTEGER NOT NULL,
  max_resident_mib      INTEGER NOT NULL,
  process_terminated    INTEGER NOT NULL,
  mean_fds              INTEGER NOT NULL,
  max_fds               INTEGER NOT NULL,
  PRIMARY KEY (client_id, server_us, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX resource_usage_by_time ON resource_usage (server_us);
