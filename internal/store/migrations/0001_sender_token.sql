-- Senders that SRS cannot carry, each under a random token that stands for it
-- (STANDARDS.md S9, D12).
CREATE TABLE sender_token (
    number INTEGER PRIMARY KEY,  -- in the order of making
    token  TEXT NOT NULL UNIQUE, -- as made, upper case
    sender TEXT NOT NULL,        -- the address as it is written in SMTP
    domain TEXT NOT NULL,        -- of the sender
    day    INTEGER NOT NULL,     -- of making, counted from 1970-01-01 UTC
    UNIQUE (day, sender)
);
CREATE INDEX sender_token_domain ON sender_token (domain);
