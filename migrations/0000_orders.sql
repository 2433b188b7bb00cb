CREATE TABLE "orders" (
	"id" uuid PRIMARY KEY NOT NULL,
	"user_id" varchar(255) NOT NULL,
	"item" varchar(255) NOT NULL,
	"amount" numeric(15, 4) NOT NULL,
	"idempotency_key" text,
	"request_fingerprint" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "orders_idempotency_key_unique" UNIQUE("idempotency_key"),
	CONSTRAINT "orders_amount_positive" CHECK ("orders"."amount" > 0)
);
