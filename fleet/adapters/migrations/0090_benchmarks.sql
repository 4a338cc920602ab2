-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE bench_runs (
  id TEXT PRIMARY KEY, started_at REAL NOT NULL, actor TEXT NOT NULL, document BLOB NOT NULL
);
CREATE TABLE bench_jobs (
  id TEXT PRIMARY KEY, run TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, why TEXT NOT NULL,
  asked_at REAL NOT NULL, said_at REAL NOT NULL, changed_at REAL NOT NULL, expires_at REAL NOT NULL,
  facts BLOB NOT NULL
);
CREATE INDEX bench_jobs_by_run ON bench_jobs (run, device);
CREATE INDEX bench_jobs_by_device ON bench_jobs (device, state, asked_at);
CREATE TABLE bench_files (
  job TEXT NOT NULL, name TEXT NOT NULL, device TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
  received REAL NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (job, name)
);
