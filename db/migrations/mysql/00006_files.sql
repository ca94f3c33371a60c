-- Files for clients, in chunks, so that no row is larger than a packet. A new content is a new generation of chunks;
-- the row of the file names the one that counts.

-- +goose Up
CREATE TABLE IF NOT EXISTS files (
  service     VARBINARY(512) NOT NULL,
  name        VARBINARY(512) NOT NULL,
  generation  BINARY(16)     NOT NULL,
  size        BIGINT         NOT NULL,
  modified_us BIGINT         NOT NULL,
  PRIMARY KEY (service, name)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS file_chunks (
  service    VARBINARY(512) NOT NULL,
  name       VARBINARY(512) NOT NULL,
  generation BINARY(16)     NOT NULL COMMENT 'starts with the time it was begun',
  chunk      INT            NOT NULL,
  data       MEDIUMBLOB     NOT NULL,
  PRIMARY KEY (service, name, generation, chunk)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
