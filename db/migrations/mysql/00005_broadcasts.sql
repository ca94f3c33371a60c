-- Broadcasts, and which client had which. "sent" counts the rows of broadcast_sent exactly: both change in one
-- transaction that holds the row of the broadcast.

-- +goose Up
CREATE TABLE IF NOT EXISTS broadcasts (
  broadcast_id       BINARY(8)      NOT NULL,
  source             VARBINARY(512) NOT NULL,
  destination        VARBINARY(512) NOT NULL COMMENT 'service on the clients',
  message_type       VARBINARY(512) NOT NULL,
  group_name         VARBINARY(512) NOT NULL,
  expiration_us      BIGINT         NULL COMMENT 'NULL: never',
  expiration_seconds BIGINT         NULL COMMENT 'the same, as it was given',
  expiration_nanos   INT            NULL,
  data               MEDIUMBLOB     NULL COMMENT 'serialized Any; NULL when absent',
  message_limit      BIGINT         NOT NULL COMMENT 'the largest integer: none; 0: disabled',
  sent               BIGINT         NOT NULL DEFAULT 0,
  created_us         BIGINT         NOT NULL,
  PRIMARY KEY (broadcast_id),
  KEY by_group (group_name, source, destination)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS broadcast_labels (
  broadcast_id BINARY(8)      NOT NULL,
  service      VARBINARY(512) NOT NULL,
  label        VARBINARY(512) NOT NULL,
  PRIMARY KEY (broadcast_id, service, label)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS broadcast_sent (
  client_id    BINARY(8) NOT NULL,
  broadcast_id BINARY(8) NOT NULL,
  PRIMARY KEY (client_id, broadcast_id),
  KEY by_broadcast (broadcast_id, client_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
