-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE wave_verdicts (
  number INTEGER NOT NULL, wave INTEGER NOT NULL, time REAL NOT NULL, decision TEXT NOT NULL, document BLOB NOT NULL,
  PRIMARY KEY (number, wave, time)
) WITHOUT ROWID;
