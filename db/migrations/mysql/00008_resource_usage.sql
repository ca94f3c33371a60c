-- What clients report of the resources that they and their services use. Rows leave by their age.

-- +goose Up
CREATE TABLE IF NOT EXISTS resource_usage (
  client_id             BINARY(8)      NOT NULL,
  server_us             BIGINT         NOT NULL,
  nonce                 BIGINT         NOT NULL COMMENT 'random; two reports may come at one time',
  scope                 VARBINARY(512) NOT NULL,
  pid                   BIGINT         NOT NULL,
  process_start_seconds BIGINT         NULL,
  process_start_nanos   INT            NULL,
  client_seconds        BIGINT         NULL COMMENT 'when the client made the report',
  client_nanos          INT            NULL,
  mean_user_cpu         DOUBLE         NOT NULL COMMENT 'ms/s, as the other rates',
  max_user_cpu          DOUBLE         NOT NULL,
  mean_system_cpu       DOUBLE         NOT NULL,
  max_system_cpu        DOUBLE         NOT NULL,
  mean_resident_mib     INT            NOT NULL,
  max_resident_mib      INT            NOT NULL,
  process_terminated    BOOLEAN        NOT NULL,
  mean_fds              INT            NOT NULL,
  max_fds               INT            NOT NULL,
  PRIMARY KEY (client_id, server_us, nonce),
  KEY by_time (server_us)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
