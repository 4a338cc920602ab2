-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE capture_campaigns (
  id TEXT PRIMARY KEY, started_at REAL NOT NULL, document BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE capture_samples (
  campaign TEXT NOT NULL, device TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL,
  sha256 TEXT NOT NULL, received REAL NOT NULL, PRIMARY KEY (campaign, device, number)
) WITHOUT ROWID;
