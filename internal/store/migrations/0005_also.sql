-- Further recipients of the message that lead to the target, one a line.
ALTER TABLE item ADD COLUMN also TEXT NOT NULL DEFAULT '';
