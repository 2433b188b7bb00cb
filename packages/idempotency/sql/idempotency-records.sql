-- The table of `createPostgresStore`: claims and stored responses, one row per key.
-- Keys are compared byte by byte: in a database's own collation, an upgrade of the C library can
-- break the primary key without a warning.
CREATE TABLE public.idempotency_records (
  key text COLLATE "C" PRIMARY KEY,
  fingerprint text NOT NULL,
  token text NOT NULL,
  response text,
  expires_at timestamptz NOT NULL,
  created_at timestamptz DEFAULT now() NOT NULL,
  -- the option `database` of the store that wrote the record
  database text
);

CREATE INDEX idempotency_records_expires_at ON public.idempotency_records (expires_at);
