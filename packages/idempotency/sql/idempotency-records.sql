-- The table of `createPostgresStore`: claims and stored responses, one row a key.
-- Keys are compared byte by byte: in a database's own collation, an upgrade of the C library can
-- break the primary key without a warning.
CREATE TABLE "idempotency_records" (
	"key" text COLLATE "C" PRIMARY KEY NOT NULL,
	"fingerprint" text NOT NULL,
	"token" text NOT NULL,
	"response" text,
	"expires_at" timestamp with time zone NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE INDEX "idempotency_records_expires_at" ON "idempotency_records" ("expires_at");
