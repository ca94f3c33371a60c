-- The key under which messages are handed over to a server that runs. It is drawn when the server starts, so the default is
-- that of a server of the time before, which is handed nothing.

-- +goose Up
ALTER TABLE servers ADD COLUMN handover_key BLOB NOT NULL DEFAULT x'';
