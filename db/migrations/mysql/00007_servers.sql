-- The fs-servers that are up, by their heartbeats, and the TLS session ticket keys that they share.

-- +goose Up
CREATE TABLE IF NOT EXISTS servers (
  server_id    VARBINARY(255) NOT NULL,
  address      VARBINARY(255) NOT NULL COMMENT 'where it takes notifications',
  version      VARBINARY(255) NOT NULL,
  sessions     BIGINT         NOT NULL,
  draining     BOOLEAN        NOT NULL,
  heartbeat_us BIGINT         NOT NULL,
  PRIMARY KEY (server_id),
  KEY by_time (heartbeat_us)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS ticket_keys (
  key_id     BINARY(16) NOT NULL,
  created_us BIGINT     NOT NULL,
  key_bytes  BINARY(32) NOT NULL,
  PRIMARY KEY (key_id),
  KEY by_time (created_us)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
