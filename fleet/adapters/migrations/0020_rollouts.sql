-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE executions_by_attempt (
  job_id TEXT PRIMARY KEY, number INTEGER NOT NULL, device TEXT NOT NULL, model TEXT NOT NULL,
  closed INTEGER NOT NULL, document BLOB NOT NULL,
  past INTEGER NOT NULL, wave INTEGER NOT NULL, bucket TEXT NOT NULL, issued INTEGER NOT NULL,
  due REAL NOT NULL, moved INTEGER NOT NULL
);
INSERT INTO executions_by_attempt
  SELECT job_id, number, device, model, closed, document, 0, 0, '', 1, 0, 1 FROM executions;
DROP TABLE executions;
ALTER TABLE executions_by_attempt RENAME TO executions;
CREATE INDEX executions_to_close ON executions (number) WHERE closed = 0;
CREATE INDEX executions_by_device ON executions (device, model, number);
CREATE INDEX executions_by_model ON executions (model, device, number);
CREATE INDEX executions_moved ON executions (number) WHERE moved = 1;
CREATE INDEX executions_due ON executions (number, due);
CREATE INDEX executions_in_waves ON executions (number, past, wave, bucket, moved, due);
CREATE TABLE running (
  device TEXT NOT NULL, model TEXT NOT NULL, bundle TEXT NOT NULL, PRIMARY KEY (device, model)
);
CREATE INDEX running_by_model ON running (model, device, bundle);
CREATE INDEX executions_by_rollout ON executions (number, job_id);
CREATE INDEX executions_clock ON executions (due, number) WHERE closed = 0;
