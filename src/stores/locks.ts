/** The numbers of our advisory locks: all users of a database share one number space. */
export const LOCKS = {
  /** "order" in ASCII */
  migration: 0x6f72646572,
  /** "once" in ASCII: held by the service that owns an embedded Postgres */
  embeddedOwner: 0x6f6e6365,
}
