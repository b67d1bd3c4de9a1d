-- Addresses under which the author of rewritten mail can be answered
-- (DESIGN.md 9.5).
CREATE TABLE reply_address (
    number INTEGER PRIMARY KEY, -- in the order of making
    token  TEXT NOT NULL UNIQUE,
    alias  TEXT NOT NULL,
    author TEXT NOT NULL,
    used   INTEGER NOT NULL,    -- the day of the last use, counted from 1970-01-01 UTC
    UNIQUE (alias, author)
) STRICT;
CREATE INDEX reply_address_used ON reply_address (used, number);
