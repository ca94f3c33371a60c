-- Messages to clients that wait for delivery or for an acknowledgement, and what became of those that do no longer.

-- +goose Up
CREATE TABLE client_messages (
  client_id        BLOB    NOT NULL,
  seq              INTEGER NOT NULL, -- order of insertion: microseconds, made unique
  message_id       BLOB    NOT NULL UNIQUE,
  due_us           INTEGER NOT NULL, -- not to be sent before
  attempts         INTEGER NOT NULL,
  kind             INTEGER NOT NULL, -- 1: a request to rekey, which a client may acknowledge under its next ID
  service          TEXT    NOT NULL, -- destination on the client
  message_type     TEXT    NOT NULL,
  creation_seconds INTEGER NULL,
  creation_nanos   INTEGER NULL,
  size             INTEGER NOT NULL, -- bytes of the serialized message
  header           BLOB    NOT NULL, -- serialized message without field data
  data             BLOB    NULL,     -- serialized Any; NULL when absent
  PRIMARY KEY (client_id, seq, message_id)
) STRICT;
CREATE INDEX client_messages_by_due ON client_messages (due_us, client_id);

CREATE TABLE message_results (
  message_id       BLOB    NOT NULL PRIMARY KEY,
  creation_seconds INTEGER NULL,
  creation_nanos   INTEGER NULL,
  processed_us     INTEGER NOT NULL,
  failed           INTEGER NOT NULL,
  reason           TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX message_results_by_time ON message_results (processed_us);
