-- Messages to clients that wait for delivery or for an acknowledgement, and what became of those that do no longer. A
-- client's rows lie together, in the order of insertion. A completed message leaves client_messages with its payload;
-- its result stays for the retention time and keeps the ID from being taken twice.

-- +goose Up
CREATE TABLE IF NOT EXISTS client_messages (
  client_id        BINARY(8)      NOT NULL,
  seq              BIGINT         NOT NULL COMMENT 'order of insertion: microseconds, made unique',
  message_id       BINARY(32)     NOT NULL,
  due_us           BIGINT         NOT NULL COMMENT 'not to be sent before',
  attempts         INT            NOT NULL,
  kind             TINYINT        NOT NULL COMMENT '1: a request to rekey, which a client may acknowledge under its next ID',
  service          VARBINARY(512) NOT NULL COMMENT 'destination on the client',
  message_type     VARBINARY(512) NOT NULL,
  creation_seconds BIGINT         NULL,
  creation_nanos   INT            NULL,
  size             INT            NOT NULL COMMENT 'bytes of the serialized message',
  header           MEDIUMBLOB     NOT NULL COMMENT 'serialized message without field data',
  data             MEDIUMBLOB     NULL COMMENT 'serialized Any; NULL when absent',
  PRIMARY KEY (client_id, seq, message_id),
  UNIQUE KEY by_message (message_id),
  KEY by_due (due_us, client_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS message_results (
  message_id       BINARY(32) NOT NULL,
  creation_seconds BIGINT     NULL,
  creation_nanos   INT        NULL,
  processed_us     BIGINT     NOT NULL,
  failed           BOOLEAN    NOT NULL,
  reason           BLOB       NOT NULL,
  PRIMARY KEY (message_id),
  KEY by_time (processed_us)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
