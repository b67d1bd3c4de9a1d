-- The queue: one item for each message and target that we have answered for.
-- Times are microseconds since 1970 UTC; 0 is none.
CREATE TABLE item (
    id          INTEGER PRIMARY KEY, -- from queue.last, never used twice
    message     TEXT NOT NULL,       -- id of the message, shared by its items
    kind        TEXT NOT NULL,       -- mail, report, notice
    sender      TEXT NOT NULL,       -- as it came in; '' is the null sender
    bounceable  INTEGER NOT NULL,
    return_path TEXT NOT NULL,       -- as it goes out; '' is the null sender
    recipient   TEXT NOT NULL,
    target      TEXT NOT NULL,
    domain      TEXT NOT NULL,       -- of the target
    rest        INTEGER NOT NULL,    -- rest.id
    size        INTEGER NOT NULL,    -- of header and rest
    eight_bit   INTEGER NOT NULL,
    utf8        INTEGER NOT NULL,
    arrived     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    state       TEXT NOT NULL,       -- waiting, held
    reason      TEXT NOT NULL,       -- why held
    refused     INTEGER NOT NULL,    -- in the session; nothing is left to try
    attempts    INTEGER NOT NULL,    -- begun; also the fencing token of the lease
    tried       INTEGER NOT NULL,    -- attempts in which a destination was asked
    unfinished  INTEGER NOT NULL,    -- attempts begun since one was finished
    next        INTEGER NOT NULL,    -- the next attempt, not before this
    owner       TEXT NOT NULL,       -- who has the lease
    lease_until INTEGER NOT NULL,
    paused      INTEGER NOT NULL,    -- not to be woken before next
    host        TEXT NOT NULL,       -- of the last attempt
    said        TEXT NOT NULL,       -- its words
    due         INTEGER NOT NULL GENERATED ALWAYS AS
                (CASE WHEN lease_until > next THEN lease_until ELSE next END) VIRTUAL
) STRICT;
CREATE INDEX item_due ON item (domain, due) WHERE state = 'waiting';
CREATE INDEX item_held ON item (id) WHERE state = 'held';

-- The header of an item, and the rest of a message, from the empty line on,
-- which its items share.
CREATE TABLE header (
    item   INTEGER PRIMARY KEY,
    bytes  BLOB NOT NULL,
    sha256 BLOB NOT NULL
) STRICT;
CREATE TABLE rest (
    id     INTEGER PRIMARY KEY, -- the lowest id of its items
    uses   INTEGER NOT NULL,    -- how many items it has
    size   INTEGER NOT NULL,
    sha256 BLOB NOT NULL
) STRICT;
CREATE TABLE piece (
    rest   INTEGER NOT NULL,
    number INTEGER NOT NULL, -- from 0
    bytes  BLOB NOT NULL,    -- 262,144 octets, the last one fewer
    PRIMARY KEY (rest, number)
) STRICT, WITHOUT ROWID;

-- Every domain that has waiting items, and when the first of them is due, so
-- that finding work costs nothing for those that wait.
CREATE TABLE destination (
    domain TEXT PRIMARY KEY,
    due    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX destination_due ON destination (due);

-- One row: totals, kept because counting would take longer the more there is.
CREATE TABLE queue (
    items INTEGER NOT NULL,
    bytes INTEGER NOT NULL, -- of all headers and rests
    last  INTEGER NOT NULL  -- the id given last
) STRICT;
INSERT INTO queue (items, bytes, last) VALUES (0, 0, 0);
