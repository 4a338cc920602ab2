-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE orders_of_models (
  device TEXT NOT NULL, model TEXT NOT NULL, job_id TEXT NOT NULL, envelope BLOB NOT NULL,
  PRIMARY KEY (device, model)
) WITHOUT ROWID;
INSERT INTO orders_of_models SELECT device, '', job_id, envelope FROM orders;
DROP TABLE orders;
ALTER TABLE orders_of_models RENAME TO orders;
