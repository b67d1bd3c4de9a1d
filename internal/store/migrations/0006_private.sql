-- Domains of the other targets of the message, one a line, which its sender may not
-- learn from a report, also when those targets have gone from the queue.
ALTER TABLE item ADD COLUMN private TEXT NOT NULL DEFAULT '';
