-- Messages to services whose processing failed for now, and those that failed for good. A claim is the due time pushed
-- behind its lease, under a token and an owner: when the holder dies the row falls due again by itself.

-- +goose Up
CREATE TABLE service_backlog (
  service          TEXT    NOT NULL,
  message_id       BLOB    NOT NULL,
  due_us           INTEGER NOT NULL,
  claim_token      BLOB    NULL, -- of the call that claimed it
  claim_owner      TEXT    NULL, -- the server that works on it
  attempts         INTEGER NOT NULL, -- how often the service had it
  created_us       INTEGER NOT NULL,
  creation_seconds INTEGER NULL, -- the message's own time
  creation_nanos   INTEGER NULL,
  size             INTEGER NOT NULL, -- bytes of the serialized message
  header           BLOB    NOT NULL, -- serialized message without field data
  data             BLOB    NULL,     -- serialized Any; NULL when absent
  PRIMARY KEY (service, message_id)
) STRICT;
CREATE INDEX service_backlog_by_message ON service_backlog (message_id);
CREATE INDEX service_backlog_by_due ON service_backlog (service, due_us, size, created_us);
CREATE INDEX service_backlog_by_owner ON service_backlog (claim_owner) WHERE claim_owner IS NOT NULL;

CREATE TABLE dead_letters (
  service          TEXT    NOT NULL,
  message_id       BLOB    NOT NULL,
  failed_us        INTEGER NOT NULL,
  reason           TEXT    NOT NULL,
  attempts         INTEGER NOT NULL,
  creation_seconds INTEGER NULL,
  creation_nanos   INTEGER NULL,
  size             INTEGER NOT NULL,
  header           BLOB    NOT NULL,
  data             BLOB    NULL,
  PRIMARY KEY (service, message_id)
) STRICT;
CREATE INDEX dead_letters_by_time ON dead_letters (failed_us);
