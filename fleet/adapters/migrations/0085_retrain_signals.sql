-- SPDX-License-Identifier: Apache-2.0
CREATE TABLE retrain_signals (
  number INTEGER PRIMARY KEY, model TEXT NOT NULL, bundle TEXT NOT NULL, state TEXT NOT NULL, made_at REAL NOT NULL,
  closed_at REAL NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, holder TEXT NOT NULL, held_until REAL NOT NULL,
  document BLOB NOT NULL
);
CREATE INDEX retrain_signals_by_model ON retrain_signals (model, state);
