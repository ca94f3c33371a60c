-- What each program may do in a database named "fleetspeak", and no more. Run it as an administrator of the database,
-- after creating the users with passwords of your own:
--
--   CREATE DATABASE fleetspeak;
--   CREATE USER 'fs_migrate'@'%' IDENTIFIED BY '...';
--   CREATE USER 'fs_server'@'%' IDENTIFIED BY '...';
--   CREATE USER 'fs_admin'@'%' IDENTIFIED BY '...';
--
-- Grants on tables need the tables: run the first grant, then `fsctl migrate --components_config FILE` with the user
-- fs_migrate in mysql_data_source_name, then the rest. A test of the store runs on exactly these rights.

-- fsctl migrate: the only one that may change the schema.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX ON fleetspeak.* TO 'fs_migrate'@'%';

-- fs-server: clients, their messages, the backlog of services, and deleting what is old. It reads files and cannot write
-- any, and creates no broadcasts.
GRANT SELECT ON fleetspeak.schema_version TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.clients TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.client_labels TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.client_services TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.client_contacts TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.client_messages TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.message_results TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.service_backlog TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.dead_letters TO 'fs_server'@'%';
GRANT SELECT, UPDATE, DELETE ON fleetspeak.broadcasts TO 'fs_server'@'%';
GRANT SELECT, DELETE ON fleetspeak.broadcast_labels TO 'fs_server'@'%';
GRANT SELECT, INSERT, DELETE ON fleetspeak.broadcast_sent TO 'fs_server'@'%';
GRANT SELECT ON fleetspeak.files TO 'fs_server'@'%';
GRANT SELECT, DELETE ON fleetspeak.file_chunks TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.servers TO 'fs_server'@'%';
GRANT SELECT, INSERT, DELETE ON fleetspeak.ticket_keys TO 'fs_server'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.resource_usage TO 'fs_server'@'%';

-- fs-admin: submitting, asking, broadcasts, files and dead letters, and deleting what is old. It registers no clients and
-- never sees a ticket key.
GRANT SELECT ON fleetspeak.schema_version TO 'fs_admin'@'%';
GRANT SELECT, UPDATE (blacklisted) ON fleetspeak.clients TO 'fs_admin'@'%';
GRANT SELECT ON fleetspeak.client_labels TO 'fs_admin'@'%';
GRANT SELECT ON fleetspeak.client_services TO 'fs_admin'@'%';
GRANT SELECT, DELETE ON fleetspeak.client_contacts TO 'fs_admin'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.client_messages TO 'fs_admin'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.message_results TO 'fs_admin'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.service_backlog TO 'fs_admin'@'%';
GRANT SELECT, UPDATE, DELETE ON fleetspeak.dead_letters TO 'fs_admin'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.broadcasts TO 'fs_admin'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.broadcast_labels TO 'fs_admin'@'%';
GRANT SELECT, DELETE ON fleetspeak.broadcast_sent TO 'fs_admin'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetspeak.files TO 'fs_admin'@'%';
GRANT SELECT, INSERT, DELETE ON fleetspeak.file_chunks TO 'fs_admin'@'%';
GRANT SELECT, DELETE ON fleetspeak.servers TO 'fs_admin'@'%';
GRANT SELECT (created_us), DELETE ON fleetspeak.ticket_keys TO 'fs_admin'@'%';
GRANT SELECT, DELETE ON fleetspeak.resource_usage TO 'fs_admin'@'%';
