-- What happened to each message, for people to look up. Only ever added to, and
-- pruned from the oldest end. Times are milliseconds since 1970 UTC. Foreign
-- text is cleaned and cut before it comes here.

-- What was sent to us: one row a message, also of one that was refused.
CREATE TABLE message (
    number  INTEGER PRIMARY KEY,
    id      TEXT NOT NULL UNIQUE,
    time    INTEGER NOT NULL, -- of MAIL FROM
    client  TEXT NOT NULL,    -- IP address
    helo    TEXT NOT NULL,
    tls     TEXT NOT NULL,    -- empty in clear
    sender  TEXT NOT NULL,    -- MAIL FROM; empty is the null sender
    subject TEXT NOT NULL,    -- undecoded
    size    INTEGER NOT NULL, -- octets; 0 when it never came
    verdict TEXT NOT NULL     -- JSON; empty when none was found
);

-- One try at one target.
CREATE TABLE attempt (
    number    INTEGER PRIMARY KEY,
    message   TEXT NOT NULL,    -- message.id, here and below
    time      INTEGER NOT NULL, -- of its begin
    took      INTEGER NOT NULL, -- milliseconds
    queued    INTEGER NOT NULL, -- 1: made by the queue, 0: while the sender waited
    recipient TEXT NOT NULL,    -- the address that was written to
    target    TEXT NOT NULL,    -- where that goes
    host      TEXT NOT NULL,
    peer      TEXT NOT NULL,    -- IP address and port
    tls       TEXT NOT NULL,
    step      TEXT NOT NULL,    -- how far it came
    result    TEXT NOT NULL,
    code      INTEGER NOT NULL, -- as the destination said, 0 when it said nothing
    status    TEXT NOT NULL,
    text      TEXT NOT NULL
);
CREATE INDEX attempt_message ON attempt (message);

-- What became of it: what we answered, one row a recipient, and what the queue
-- or a person did later, one row an item.
CREATE TABLE event (
    number    INTEGER PRIMARY KEY, -- in the order of writing; readers remember how far they came
    message   TEXT NOT NULL,
    time      INTEGER NOT NULL,
    answer    INTEGER NOT NULL,    -- 1: our final answer to the sender
    sender    TEXT NOT NULL COLLATE NOCASE,
    recipient TEXT NOT NULL COLLATE NOCASE,
    targets   TEXT NOT NULL,       -- JSON array
    outcome   TEXT NOT NULL,
    by_whom   TEXT NOT NULL,       -- empty: onward itself
    code      INTEGER NOT NULL,
    status    TEXT NOT NULL,
    text      TEXT NOT NULL
);
CREATE INDEX event_message ON event (message);
CREATE INDEX event_time ON event (time);
CREATE INDEX event_sender ON event (sender, time);
CREATE INDEX event_recipient ON event (recipient, time);
