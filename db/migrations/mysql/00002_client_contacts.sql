-- The contact history of clients. Rows leave by their age.

-- +goose Up
CREATE TABLE IF NOT EXISTS client_contacts (
  client_id      BINARY(8)      NOT NULL,
  contact_us     BIGINT         NOT NULL COMMENT 'unique for a client',
  sent_nonce     BIGINT         NOT NULL COMMENT 'the bits of an unsigned integer',
  received_nonce BIGINT         NOT NULL,
  address        VARBINARY(255) NOT NULL,
  PRIMARY KEY (client_id, contact_us, sent_nonce),
  KEY by_time (contact_us)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
