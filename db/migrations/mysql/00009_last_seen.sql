-- Since when a server runs. A client whose session it has held since then was there at its last heartbeat, so that an open
-- session costs no writes and its client is known to be there all the same. The default is a server of the time before.

-- +goose Up
ALTER TABLE servers
  ADD COLUMN /*M! IF NOT EXISTS */ started_us BIGINT NOT NULL DEFAULT 0,
  ADD KEY /*M! IF NOT EXISTS */ by_address (address, started_us, heartbeat_us);
