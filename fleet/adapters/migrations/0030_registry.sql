-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE channels (
  model TEXT NOT NULL, channel TEXT NOT NULL, bundle TEXT NOT NULL, since REAL NOT NULL,
  PRIMARY KEY (model, channel)
);
CREATE TABLE channel_moves (
  number INTEGER PRIMARY KEY, model TEXT NOT NULL, channel TEXT NOT NULL, verb TEXT NOT NULL,
  old_bundle TEXT NOT NULL, new_bundle TEXT NOT NULL, time REAL NOT NULL, actor TEXT NOT NULL,
  reason TEXT NOT NULL
);
CREATE INDEX channel_moves_by_model ON channel_moves (model, channel, number);
CREATE TABLE version_states (
  bundle TEXT PRIMARY KEY, registered_by TEXT NOT NULL, retired_at REAL NOT NULL, retired_why TEXT NOT NULL
);
CREATE TABLE version_evidence (
  bundle TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, time REAL NOT NULL, actor TEXT NOT NULL,
  document BLOB NOT NULL, PRIMARY KEY (bundle, kind, subject)
);
CREATE TABLE rule_outcomes (
  bundle TEXT NOT NULL, channel TEXT NOT NULL, time REAL NOT NULL, met INTEGER NOT NULL, document BLOB NOT NULL,
  PRIMARY KEY (bundle, channel)
);
