-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE accounts (
  name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT NOT NULL, created_at REAL NOT NULL,
  seen_at REAL NOT NULL DEFAULT 0
);
CREATE TABLE sessions (
  digest TEXT PRIMARY KEY, account TEXT NOT NULL, created_at REAL NOT NULL, seen_at REAL NOT NULL
);
CREATE INDEX sessions_by_account ON sessions (account);
CREATE TABLE api_tokens (
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL, digest TEXT NOT NULL, account TEXT NOT NULL,
  created_at REAL NOT NULL, expires_at REAL NOT NULL, used_at REAL NOT NULL DEFAULT 0
);
CREATE TABLE invitations (
  digest TEXT PRIMARY KEY, account TEXT NOT NULL, role TEXT NOT NULL, expires_at REAL NOT NULL,
  used_at REAL NOT NULL DEFAULT 0
);
