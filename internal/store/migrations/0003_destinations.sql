-- What destinations have said about copies of messages whose senders may try
-- again (DESIGN.md 9.6).
CREATE TABLE reply (
    number INTEGER PRIMARY KEY, -- in the order of writing
    key    BLOB NOT NULL UNIQUE,
    code   INTEGER NOT NULL,
    status TEXT NOT NULL,
    text   TEXT NOT NULL,
    until  INTEGER NOT NULL
) STRICT;

-- Destinations that have asked us to go slow (RELIABILITY.md 77).
CREATE TABLE pause (
    key    TEXT PRIMARY KEY,
    until  INTEGER NOT NULL,
    step   INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
