-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE drift_hours (
  device TEXT NOT NULL, scale INTEGER NOT NULL, hour INTEGER NOT NULL, began INTEGER NOT NULL, day INTEGER NOT NULL,
  days INTEGER NOT NULL, effect REAL NOT NULL, sway REAL NOT NULL, counts BLOB NOT NULL,
  PRIMARY KEY (device, scale, hour)
) WITHOUT ROWID;
CREATE INDEX drift_hours_by_day ON drift_hours (day);
