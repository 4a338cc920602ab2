-- SPDX-License-Identifier: Apache-2.0
ALTER TABLE marks ADD COLUMN top INTEGER NOT NULL DEFAULT 0;
ALTER TABLE marks ADD COLUMN heard REAL NOT NULL DEFAULT 0;
UPDATE marks SET top = COALESCE((
  SELECT MAX(seq) FROM telemetry
  WHERE telemetry.device = marks.device AND telemetry.boot = marks.boot AND telemetry.class = marks.class
), 0);
CREATE TABLE rollups (
  device TEXT NOT NULL, class TEXT NOT NULL, hour INTEGER NOT NULL, received INTEGER NOT NULL,
  inferences INTEGER NOT NULL, errors INTEGER NOT NULL, document BLOB NOT NULL, PRIMARY KEY (device, class, hour)
) WITHOUT ROWID;
CREATE INDEX rollups_by_hour ON rollups (hour);
CREATE TABLE retention (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX results_by_time ON results (time);
CREATE INDEX windows_by_time ON windows (time);
