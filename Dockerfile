# The service for production: `docker build -t order-once .`
# How to run it: docs/operations.md.
ARG NODE_IMAGE=node:24.21.0-bookworm-slim

# Compiles; only dist/ leaves this stage.
FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY packages/idempotency/package.json packages/idempotency/
# The compiler comes as an optional package, so these are not left out. It needs no install script.
RUN npm ci --ignore-scripts
COPY tsconfig.json ./
COPY packages packages
COPY src src
RUN npm run build

# What the service needs at run time. The optional packages are the embedded Postgres.
FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY packages/idempotency/package.json packages/idempotency/
RUN npm ci --omit=dev --omit=optional --ignore-scripts

FROM ${NODE_IMAGE}
WORKDIR /app
# In production the service does not start without HMAC_SECRET, DATABASE_URL and REDIS_URL.
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080
COPY --from=dependencies /app/node_modules node_modules
COPY package.json ./
COPY packages/idempotency/package.json packages/idempotency/
# Each start applies pending migrations.
COPY migrations migrations
COPY --from=build /app/packages/idempotency/dist packages/idempotency/dist
COPY --from=build /app/dist dist
# The pages are not compiled; dist/docs reads them from here.
COPY src/docs/pages src/docs/pages
# The image's user "node", who can read all this and write none of it; by number, so that Kubernetes
# sees that it is not root.
USER 1000:1000
EXPOSE 8080
# Whether the process responds, not whether its stores do: a restart would not bring those back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + process.env.PORT + '/health/live').then((response) => process.exit(response.ok ? 0 : 1), () => process.exit(1))"]
# No shell and no npm in between: SIGTERM reaches the service, which closes within 10 seconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "dist/main.js"]
# `docker run … order-once migrate` and `… cleanup` run the other commands.
CMD ["serve"]
