-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE alerts (alert TEXT PRIMARY KEY, document BLOB NOT NULL);
CREATE TABLE alert_mutes (
  id TEXT PRIMARY KEY, pattern TEXT NOT NULL, until REAL NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL
);
CREATE TABLE alert_outbox (
  id TEXT PRIMARY KEY, receiver TEXT NOT NULL, body BLOB NOT NULL, created_at REAL NOT NULL, next_at REAL NOT NULL,
  tries INTEGER NOT NULL, error TEXT NOT NULL, sent_at REAL NOT NULL
);
CREATE INDEX alert_outbox_due ON alert_outbox (sent_at, next_at);
