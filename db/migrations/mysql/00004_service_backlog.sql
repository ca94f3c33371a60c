-- Messages to services whose processing failed for now, and those that failed for good. A claim is the due time pushed
-- behind its lease, under a token and an owner: when the holder dies the row falls due again by itself.

-- +goose Up
CREATE TABLE IF NOT EXISTS service_backlog (
  service          VARBINARY(512) NOT NULL,
  message_id       BINARY(32)     NOT NULL,
  due_us           BIGINT         NOT NULL,
  claim_token      BINARY(16)     NULL COMMENT 'of the call that claimed it',
  claim_owner      VARBINARY(255) NULL COMMENT 'the server that works on it',
  attempts         INT            NOT NULL COMMENT 'how often the service had it',
  created_us       BIGINT         NOT NULL,
  creation_seconds BIGINT         NULL COMMENT 'the message''s own time',
  creation_nanos   INT            NULL,
  size             INT            NOT NULL COMMENT 'bytes of the serialized message',
  header           MEDIUMBLOB     NOT NULL COMMENT 'serialized message without field data',
  data             MEDIUMBLOB     NULL COMMENT 'serialized Any; NULL when absent',
  PRIMARY KEY (service, message_id),
  KEY by_message (message_id),
  KEY by_due (service, due_us, size, created_us),
  KEY by_owner (claim_owner)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS dead_letters (
  service          VARBINARY(512) NOT NULL,
  message_id       BINARY(32)     NOT NULL,
  failed_us        BIGINT         NOT NULL,
  reason           BLOB           NOT NULL,
  attempts         INT            NOT NULL,
  creation_seconds BIGINT         NULL,
  creation_nanos   INT            NULL,
  size             INT            NOT NULL,
  header           MEDIUMBLOB     NOT NULL,
  data             MEDIUMBLOB     NULL,
  PRIMARY KEY (service, message_id),
  KEY by_time (failed_us)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
