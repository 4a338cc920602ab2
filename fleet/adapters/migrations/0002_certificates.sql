-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE certificates (
  serial TEXT PRIMARY KEY, device TEXT NOT NULL, key_digest TEXT NOT NULL, issued_at REAL NOT NULL,
  not_after REAL NOT NULL, seen_at REAL NOT NULL DEFAULT 0, revoked_at REAL NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX certificates_by_device ON certificates (device, issued_at);
CREATE TABLE identities (device TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
