-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE device_labels (
  device TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device, name)
);
CREATE TABLE device_groups (
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, query TEXT NOT NULL, priority INTEGER NOT NULL, config BLOB NOT NULL,
  created_at REAL NOT NULL, created_by TEXT NOT NULL
);
CREATE TABLE group_members (
  name TEXT NOT NULL, device TEXT NOT NULL, PRIMARY KEY (name, device)
);
CREATE TABLE device_states (
  device TEXT PRIMARY KEY, state TEXT NOT NULL, since REAL NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL
);
CREATE TABLE quarantined_rows (
  device TEXT NOT NULL, boot TEXT NOT NULL, class TEXT NOT NULL, seq INTEGER NOT NULL, time REAL NOT NULL,
  received REAL NOT NULL, body BLOB NOT NULL, PRIMARY KEY (device, boot, class, seq)
);
CREATE TABLE device_config (device TEXT PRIMARY KEY, document BLOB NOT NULL);
CREATE TABLE commands (
  id TEXT PRIMARY KEY, device TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL, actor TEXT NOT NULL,
  asked_at REAL NOT NULL, deadline REAL NOT NULL, answered_at REAL NOT NULL, answer BLOB NOT NULL,
  size INTEGER NOT NULL
);
CREATE INDEX commands_by_device ON commands (device, asked_at);
CREATE TABLE command_pieces (
  id TEXT NOT NULL, part INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (id, part)
);
