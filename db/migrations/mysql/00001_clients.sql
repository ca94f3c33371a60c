-- Clients, their labels and their services. All three are keyed by client first. Names are VARBINARY, which compares byte
-- by byte and pads nothing; 512 bytes hold 128 characters of any kind.

-- +goose Up
CREATE TABLE IF NOT EXISTS clients (
  client_id            BINARY(8)       NOT NULL,
  client_key           VARBINARY(4096) NOT NULL COMMENT 'public key, PKIX DER',
  blacklisted          BOOLEAN         NOT NULL DEFAULT FALSE,
  first_contact_us     BIGINT          NOT NULL,
  last_contact_us      BIGINT          NOT NULL,
  last_contact_address VARBINARY(255)  NOT NULL,
  clock_seconds        BIGINT          NULL COMMENT 'the clock of the client in its last contact',
  clock_nanos          INT             NULL,
  streaming_to         VARBINARY(255)  NOT NULL DEFAULT '' COMMENT 'address of the server that holds its session',
  PRIMARY KEY (client_id),
  KEY by_last_contact (last_contact_us)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS client_labels (
  client_id BINARY(8)      NOT NULL,
  service   VARBINARY(512) NOT NULL COMMENT 'owner of the label; client for what the client reports',
  label     VARBINARY(512) NOT NULL,
  PRIMARY KEY (client_id, service, label),
  KEY by_label (service, label, client_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS client_services (
  client_id BINARY(8)       NOT NULL,
  name      VARBINARY(512)  NOT NULL,
  signature VARBINARY(4096) NOT NULL COMMENT 'empty when its configuration is unsigned',
  PRIMARY KEY (client_id, name)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
