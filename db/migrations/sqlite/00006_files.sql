-- Files for clients, in chunks. A new content is a new generation of chunks; the row of the file names the one that
-- counts.

-- +goose Up
CREATE TABLE files (
  service     TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  generation  BLOB    NOT NULL,
  size        INTEGER NOT NULL,
  modified_us INTEGER NOT NULL,
  PRIMARY KEY (service, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE file_chunks (
  service    TEXT    NOT NULL,
  name       TEXT    NOT NULL,
  generation BLOB    NOT NULL, -- starts with the time it was begun
  chunk      INTEGER NOT NULL,
  data       BLOB    NOT NULL,
  PRIMARY KEY (service, name, generation, chunk)
) STRICT;
