-- The contact history of clients. Rows leave by their age.

-- +goose Up
CREATE TABLE client_contacts (
  client_id      BLOB    NOT NULL,
  contact_us     INTEGER NOT NULL, -- unique for a client
  sent_nonce     INTEGER NOT NULL, -- the bits of an unsigned integer
  received_nonce INTEGER NOT NULL,
  address        TEXT    NOT NULL,
  PRIMARY KEY (client_id, contact_us, sent_nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX client_contacts_by_time ON client_contacts (contact_us);
