CREATE TABLE "order_once_database" (
	"id" text PRIMARY KEY NOT NULL
);
--> statement-breakpoint
CREATE TABLE "orders" (
	"id" uuid PRIMARY KEY NOT NULL,
	"client_id" text collate "C" DEFAULT 'default' NOT NULL,
	"user_id" varchar(255) NOT NULL,
	"item" varchar(255) NOT NULL,
	"amount" numeric(15, 4) NOT NULL,
	"idempotency_key" text collate "C",
	"released_key" text collate "C",
	"request_fingerprint" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "orders_client_id_idempotency_key" UNIQUE("client_id","idempotency_key"),
	CONSTRAINT "orders_amount_positive" CHECK ("orders"."amount" > 0)
);
--> statement-breakpoint
CREATE INDEX "orders_created_at" ON "orders" USING btree ("created_at") WHERE "orders"."idempotency_key" is not null;
--> statement-breakpoint
-- Four random bytes as hex digits: the first of a random UUID.
INSERT INTO "order_once_database" ("id") VALUES (left(gen_random_uuid()::text, 8));
--> statement-breakpoint
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
--> statement-breakpoint
CREATE INDEX idempotency_records_expires_at ON public.idempotency_records (expires_at);
