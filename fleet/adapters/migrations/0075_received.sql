-- SPDX-License-Identifier: Apache-2.0
ALTER TABLE results ADD COLUMN received REAL NOT NULL DEFAULT 0;
ALTER TABLE windows ADD COLUMN received REAL NOT NULL DEFAULT 0;
UPDATE results SET received = time;
UPDATE windows SET received = time;
DROP INDEX results_by_time;
CREATE INDEX results_by_received ON results (received);
CREATE INDEX windows_by_received ON windows (received);
