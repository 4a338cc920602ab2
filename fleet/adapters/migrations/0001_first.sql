-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE devices (
  device TEXT PRIMARY KEY, enrolled_at REAL NOT NULL,
  boot TEXT NOT NULL DEFAULT '', session INTEGER NOT NULL DEFAULT -1,
  dead_boot TEXT NOT NULL DEFAULT '', dead_session INTEGER NOT NULL DEFAULT -1,
  born_at REAL NOT NULL DEFAULT 0, last_seen REAL NOT NULL DEFAULT 0,
  agent_version TEXT NOT NULL DEFAULT '', runtime TEXT NOT NULL DEFAULT '',
  runtime_version TEXT NOT NULL DEFAULT '', board TEXT NOT NULL DEFAULT '{}',
  reported BLOB, desired BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE tokens (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE models (
  bundle TEXT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL,
  registered_at REAL NOT NULL, manifest BLOB NOT NULL, UNIQUE (model, version)
) WITHOUT ROWID;
CREATE TABLE rollouts (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, document BLOB NOT NULL
);
CREATE TABLE executions (
  job_id TEXT PRIMARY KEY, number INTEGER NOT NULL, device TEXT NOT NULL, model TEXT NOT NULL,
  closed INTEGER NOT NULL, document BLOB NOT NULL, UNIQUE (number, device)
) WITHOUT ROWID;
CREATE INDEX executions_to_close ON executions (number) WHERE closed = 0;
CREATE INDEX executions_by_device ON executions (device, model, number);
CREATE TABLE orders (device TEXT PRIMARY KEY, job_id TEXT NOT NULL, envelope BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE telemetry (
  id INTEGER PRIMARY KEY, device TEXT NOT NULL, boot TEXT NOT NULL, class TEXT NOT NULL,
  seq INTEGER NOT NULL, time REAL NOT NULL, received REAL NOT NULL, body BLOB NOT NULL,
  UNIQUE (device, boot, class, seq)
);
CREATE INDEX telemetry_by_class ON telemetry (device, class, id);
CREATE TABLE marks (
  device TEXT NOT NULL, boot TEXT NOT NULL, class TEXT NOT NULL, up_to INTEGER NOT NULL,
  dropped INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (device, boot, class)
) WITHOUT ROWID;
CREATE TABLE results (
  id INTEGER PRIMARY KEY, device TEXT NOT NULL, time REAL NOT NULL, bundle TEXT NOT NULL,
  ref TEXT NOT NULL, class INTEGER NOT NULL, confidence REAL NOT NULL
);
CREATE INDEX results_by_device ON results (device, id);
CREATE TABLE labels (
  device TEXT NOT NULL, ref TEXT NOT NULL, label INTEGER NOT NULL, PRIMARY KEY (device, ref)
) WITHOUT ROWID;
CREATE TABLE windows (
  id INTEGER PRIMARY KEY, device TEXT NOT NULL, bundle TEXT NOT NULL, time REAL NOT NULL,
  level TEXT NOT NULL, summary BLOB NOT NULL, verdict BLOB NOT NULL
);
CREATE INDEX windows_by_device ON windows (device, id);
CREATE TABLE drift_states (
  device TEXT NOT NULL, bundle TEXT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (device, bundle)
) WITHOUT ROWID;
CREATE TABLE audit (
  number INTEGER PRIMARY KEY, time TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
  subject TEXT NOT NULL, detail BLOB NOT NULL, previous TEXT NOT NULL, digest TEXT NOT NULL
);
CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY, time REAL NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
