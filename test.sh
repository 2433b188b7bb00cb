#!/usr/bin/env bash
#
# Checks the order service from outside, as a client uses it.
#
#   ./test.sh                                    starts a service, checks it and stops it
#   BASE_URL=http://127.0.0.1:8080 ./test.sh     checks a running service
#
# The secret is HMAC_SECRET, by default the development secret. A running service is checked within
# its rate limit. With the default of 10 requests in a minute, that takes 4 to 6 minutes.
#
# Not checked, because a client cannot cause them at will: 409 request-in-progress, 500 and 503.
# MAX_BODY_BYTES and IDEMPOTENCY_MISMATCH_STATUS must have their defaults.

set -u
export LC_ALL=C # compares bytes, and lets `tr` accept any byte

root=$(CDPATH= cd "$(dirname "$0")" && pwd)
secret=${HMAC_SECRET:-super-secret-key}
base_url=${BASE_URL:-}
base_url=${base_url%/}
tmp= service=
status= body= remaining= reset=
passed=0 failed=0 skipped=0

give_up() {
  echo "test.sh: $1" >&2
  exit 1
}

needs() {
  command -v "$1" >/dev/null || give_up "$1 was not found: install it"
}

# --- the service to check -----------------------------------------------------------------------

finish() {
  trap '' INT TERM HUP # a second Ctrl-C would leave the service running
  if [ -n "$service" ]; then
    kill "$service" 2>/dev/null
    wait "$service" 2>/dev/null
  fi
  if [ -n "$tmp" ]; then rm -rf "$tmp"; fi
}

start_service() {
  needs node
  needs npm
  if [ ! -d "$root/node_modules" ]; then
    give_up 'the packages are not installed: run `npm ci`, or set BASE_URL to a running service'
  fi
  echo 'Building and starting a service to check.'
  (cd "$root" && npm run --silent build) || give_up 'the build failed'

  # The program itself: the `node` of a version manager may not pass signals on.
  local node port
  node=$(node -p process.execPath)
  port=$("$node" -e '
    const server = require("net").createServer().listen(0, "127.0.0.1", () => {
      console.log(server.address().port)
      server.close()
    })')
  base_url=http://127.0.0.1:$port
  mkdir "$tmp/service"
  chmod 711 "$tmp" # for root: the database runs as another user and must reach its files here
  cd "$tmp/service" || exit 1 # a folder without .env

  # In a separate process group, so that Ctrl-C reaches only this script, which stops the service.
  # A window of 5 s allows exceeding the limit on a slow machine, and makes the pauses short.
  set -m
  env -i PATH="$PATH" STORES=embedded DATA_DIR=data PORT="$port" HMAC_SECRET="$secret" \
    RATE_LIMIT_WINDOW_SECONDS=5 "$node" "$root/dist/main.js" serve \
    </dev/null >"$tmp/log" 2>&1 &
  service=$!
  set +m

  local deadline=$((SECONDS + 60))
  until is_up; do
    if ! kill -0 "$service" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 20 "$tmp/log" >&2
      give_up 'the service did not start; the last lines of its log are above'
    fi
    sleep 0.2
  done
}

is_up() { http "$base_url/" -o /dev/null 2>/dev/null; }

# --- requests -----------------------------------------------------------------------------------

# -q: a ~/.curlrc would change what is sent.
http() { curl -q -sS --noproxy localhost,127.0.0.1 --max-time 60 "$@"; }

# Sends a request. Its response is in $status, $body and the file $tmp/headers.
exchange() {
  local path=$1
  shift
  : >"$tmp/body"
  : >"$tmp/headers"
  status=$(http "$base_url$path" -o "$tmp/body" -D "$tmp/headers" -w '%{http_code}' "$@")
  body=$(cat "$tmp/body")
}

# post <bytes> [options of curl]: sends exactly these bytes to POST /orders, unsigned.
post() {
  local bytes=$1
  shift
  printf %s "$bytes" >"$tmp/request"
  exchange /orders --data-binary "@$tmp/request" \
    -H "Content-Type: ${media_type:-application/json}" -H Expect: "$@"
}

# Sends them signed, once.
post_once() {
  post "$@" -H "X-Signature: $(sign "$1")"
  remaining=$(header X-RateLimit-Remaining)
  reset=$(header X-RateLimit-Reset)
}

# Sends them signed, again after each 429.
post_signed() {
  post_once "$@"
  while [ "$status" = 429 ]; do
    pause "$(header Retry-After)"
    post_once "$@"
  done
}

# order <key> <bytes>: sends them signed, with an idempotency key.
order() { post_signed "$2" -H "Idempotency-Key: $1"; }

# read_order <path>: reads an order, signed, again after each 429.
read_order() {
  exchange "$1" -H "X-Signature: $(sign "$1")"
  while [ "$status" = 429 ]; do
    pause "$(header Retry-After)"
    exchange "$1" -H "X-Signature: $(sign "$1")"
  done
}

sign() {
  printf %s "$1" | openssl dgst -sha256 -hmac "$secret" | sed 's/.* //' | tr a-f "${hex:-a-f}"
}

pause() {
  local seconds=${1:-1}
  echo "waiting $seconds s for the rate limit"
  sleep "$seconds"
}

new_key() { echo "test-$(openssl rand -hex 12)"; }

# --- responses ----------------------------------------------------------------------------------

header() { tr -d '\r' <"$tmp/headers" | grep -i "^$1:" | sed 's/^[^:]*: *//'; }

# Prints the value of a member that is a plain string or a number.
member() { printf '%s\n' "$body" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }

# Prints those of the named headers that are not a whole number.
unnumbered() {
  local name
  for name; do
    header "$name" | grep -Eq '^[0-9]+$' || printf '%s: %s; ' "$name" "$(header "$name")"
  done
}

# Prints the fields that an invalid-body names, in alphabetical order.
fields() {
  local names
  names=$(printf '%s\n' "$body" | grep -o '"field":"[^"]*"' | cut -d '"' -f 4 | sort)
  echo $names
}

# Prints the response without what differs in each order: its id and its time.
pattern() {
  printf '%s\n' "$status $body" | sed -E \
    -e 's/"id":"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"/"id":"<uuid>"/' \
    -e 's/"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"/"<time>"/'
}

# created <key> <members as the client sent them>: prints the expected pattern of a 201.
created() {
  printf '201 {"order":{"id":"<uuid>",%s,"idempotency_key":"%s","created_at":"<time>"}}' "$2" "$1"
}

# --- checks -------------------------------------------------------------------------------------

section() { printf '\n%s\n' "$1"; }

# check <sentence> <expected> <received>
check() {
  if [ "$2" = "$3" ]; then
    passed=$((passed + 1))
    echo "ok   - $1"
  else
    failed=$((failed + 1))
    printf 'FAIL - %s\n       expected: %s\n       received: %s\n' "$1" "$2" "$3"
  fi
}

skip() {
  skipped=$((skipped + 1))
  echo "SKIP - $1"
}

# refused <sentence> <status> <code>: checks that the last response is this problem document.
refused() {
  check "$1: $2 $3" "$2 application/problem+json /problems/$3 $2 $3" \
    "$status $(header Content-Type | sed 's/;.*//') $(member type) $(member status) $(member code)"
}

# invalid <sentence> <expected fields> <bytes>: sends an order, and checks that it is invalid.
invalid() {
  order "$(new_key)" "$3"
  check "$1: 400 invalid-body" \
    "400 application/problem+json invalid-body, naming $2" \
    "$status $(header Content-Type | sed 's/;.*//') $(member code), naming $(fields)"
}

# replays <sentence> <file>: checks that the last response is a replay of the one in the file.
replays() {
  local bytes='other bytes'
  if cmp -s "$2" "$tmp/body"; then bytes='the same bytes'; fi
  check "$1: replayed byte for byte" \
    '201 application/json; charset=utf-8, the same bytes, replayed: true' \
    "$status $(header Content-Type), $bytes, replayed: $(header Idempotency-Replayed)"
}

# --- the checks, in an order that needs few pauses ----------------------------------------------

needs curl
needs openssl
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
tmp=$(mktemp -d) || give_up 'no temporary folder could be made'

if [ -z "$base_url" ]; then
  start_service
elif ! is_up; then
  give_up "$base_url does not respond: start the service there, or unset BASE_URL"
fi
echo "Checking the service at $base_url."

key=$(new_key)
members='"user_id":"user-1","item":"book","amount":500'
book="{$members}"

section 'The rate limit'

post_signed '{}'
if [ "$status" = 401 ]; then
  echo 'The service refuses the signature. Set HMAC_SECRET to the secret of the service.'
fi
limit=$(header X-RateLimit-Limit)
check 'a response to a signed request has the rate-limit headers' '' \
  "$(unnumbered X-RateLimit-Limit X-RateLimit-Remaining X-RateLimit-Reset)"
limit=${limit:-0}
if [ "$limit" -gt 50 ]; then
  skip "the rate limit: $limit requests are too many to send here"
elif [ "$limit" -gt 0 ]; then
  if [ "$remaining" != $((limit - 1)) ]; then # the window began before this script
    pause "$reset"
    post_signed '{}'
  fi
  sent=1
  while [ "$sent" -lt "$limit" ] && [ "$status" != 429 ]; do
    post_once '{}'
    sent=$((sent + 1))
  done
  check "$limit requests are allowed in a window, then none remains" \
    "sent $limit, the last: 400, 0 remain" "sent $sent, the last: $status, $remaining remain"
  post_once "$book" -H "Idempotency-Key: $key"
  refused 'one more request' 429 rate-limit-exceeded
  check 'the refusal has Retry-After' '' "$(unnumbered Retry-After)"
  post "$book"
  refused 'an unsigned request gets 401 beyond the limit too' 401 signature-missing
fi

section 'A new order and its repeats'

order "$key" "{$members,\"colour\":\"red\"}"
refused 'an order with an unknown member' 400 invalid-body
check 'the refusal names the member' colour "$(fields)"

order "$key" "$book"
check 'the same key with a corrected body creates the order: 201' \
  "$(created "$key" "$members")" "$(pattern)"
check 'a first response is JSON, without Idempotency-Replayed' \
  'application/json; charset=utf-8, replayed: ' \
  "$(header Content-Type), replayed: $(header Idempotency-Replayed)"
cp "$tmp/body" "$tmp/first"
location=$(header Location)
check 'a first response has the path of the order in Location' "/orders/$(member id)" "$location"

order "$key" "$book"
replays 'a repeat' "$tmp/first"
check 'the repeat has the same Location' "$location" "$(header Location)"

order "$key" '{"user_id":"user-1","item":"book","amount":501}'
refused 'the same key with another body' 409 idempotency-key-reused
check 'the refusal names what differs' '["amount"]' \
  "$(printf '%s' "$body" | sed -n 's/.*"changed":\(\[[^]]*\]\).*/\1/p')"

# Padded to 64 KiB, the largest allowed size.
order "$key" "$(printf '%-65536s' '{ "amount": 5e2, "item": "\u0062ook", "user_id": "user-1" }')"
replays 'a repeat with another order of members, other white space and other escapes' "$tmp/first"

hex=A-F order "\"$key\"" "$book"
replays 'a repeat with the key in quotes and the signature in upper case' "$tmp/first"

section 'Reading'

for path in "$location" "/orders?idempotency_key=$key"; do
  read_order "$path"
  cmp -s "$tmp/body" "$tmp/first" && bytes='the same bytes' || bytes='other bytes'
  check "GET ${path%%[0-9=]*} returns the bytes of the 201" \
    '200 application/json; charset=utf-8, the same bytes' \
    "$status $(header Content-Type), $bytes"
done
read_order /orders/0191c3a0-6d1b-7f7e-9c55-3b8f0f6d2a71
refused 'an order that does not exist' 404 order-not-found
read_order '/orders?key=1'
refused 'another query' 400 bad-request
exchange "$location"
refused 'reading without a signature' 401 signature-missing

section 'Bodies'

key=$(new_key)
order "$key" '{"user_id":"Zoë 你好","item":"📚 \"l’été\" \\ \n","amount":0.1}'
check 'Unicode and an amount of 0.1 are returned unchanged: 201' \
  "$(created "$key" '"user_id":"Zoë 你好","item":"📚 \"l’été\" \\ \n","amount":0.1')" "$(pattern)"

text=$(printf '%255s' '' | tr ' ' x)
key=$(openssl rand -hex 128 | cut -c 1-255)
order "$key" "{\"user_id\":\"$text\",\"item\":\"x\",\"amount\":99999999999.9999}"
check 'the longest key and text and the largest amount, 99999999999.9999: 201' \
  "$(created "$key" "\"user_id\":\"$text\",\"item\":\"x\",\"amount\":99999999999.9999")" "$(pattern)"

key="$(new_key)!#\$%&'()*+-./:;<=>?@[]^_\`{|}~"
order "$key" '{"user_id":"user-1","item":"book","amount":1e2}'
check 'a key with every allowed punctuation mark, and an amount of 1e2: 201' \
  "$(created "$key" '"user_id":"user-1","item":"book","amount":100')" "$(pattern)"

all='amount item user_id'
invalid 'no members' "$all" '{}'
invalid 'amount 0, a blank item, an empty user_id' "$all" '{"user_id":"","item":" \t","amount":0}'
invalid 'amount -1, an item with a NUL, a user_id of 256 characters' "$all" \
  "{\"user_id\":\"x$text\",\"item\":\"a\\u0000b\",\"amount\":-1}"
invalid 'amount 0.00001, an item that is null, half a surrogate pair' "$all" \
  '{"user_id":"\ud83d","item":null,"amount":0.00001}'
invalid 'amount 1e30, an item that is an array, a user_id that is a number' "$all" \
  '{"user_id":5,"item":["book"],"amount":1e30}'
invalid 'amount "5"' amount '{"user_id":"user-1","item":"book","amount":"5"}'
invalid 'amount NaN, which is not JSON' body '{"user_id":"user-1","item":"book","amount":NaN}'
invalid 'a member __proto__' __proto__ "{$members,\"__proto__\":{\"amount\":1}}"

media_type=text/plain order "$(new_key)" "$book"
refused 'a body that is not application/json' 415 unsupported-media-type
post_once "$(printf '%-65537s' "$book")" -H "Idempotency-Key: $(new_key)"
refused 'a body larger than 64 KiB' 413 body-too-large

section 'Keys'

post_signed "$book"
refused 'no key' 400 idempotency-key-missing
post_signed "$book" -H 'Idempotency-Key;'
refused 'an empty key' 400 idempotency-key-invalid
key=$(new_key)
post_signed "$book" -H "Idempotency-Key: $key" -H "Idempotency-Key: $key"
refused 'the key twice' 400 idempotency-key-invalid
order "$(openssl rand -hex 128)" "$book"
refused 'a key of 256 bytes' 400 idempotency-key-invalid
for key in 'a b' 'a,b' 'a"b' 'a\b' 'clé'; do
  order "$key" "$book"
  refused "the key $key" 400 idempotency-key-invalid
done

section 'Identical concurrent requests'

concurrent=8
if [ "$limit" -gt 0 ] && [ "$limit" -lt "$concurrent" ]; then concurrent=$limit; fi
if [ "$concurrent" -lt 2 ]; then
  skip "concurrent requests: the rate limit of $limit allows fewer than two"
else
  if [ "${remaining:-0}" -lt "$concurrent" ]; then pause "$reset"; fi
  key=$(new_key)
  signature=$(sign "$book")
  pids=
  for ((i = 1; i <= concurrent; i++)); do
    (
      tmp=$tmp/request-$i
      mkdir "$tmp"
      post "$book" -H "Idempotency-Key: $key" -H "X-Signature: $signature"
      echo "$status,$(header Idempotency-Replayed),$body" >"$tmp/outcome"
    ) &
    pids="$pids $!"
  done
  wait $pids
  cat "$tmp"/request-*/outcome >"$tmp/outcomes"
  grep '^201,' "$tmp/outcomes" | sed 's/^201,[^,]*,//' | sort -u | tr -d '\n' >"$tmp/first"
  check "each of $concurrent gets the order (201) or 409 request-in-progress" "$concurrent" \
    "$(grep -c -e '^201,' -e '^409,.*"code":"request-in-progress"' "$tmp/outcomes")"
  check 'exactly one of them is a first response' 1 "$(grep -c '^201,,' "$tmp/outcomes")"
  order "$key" "$book"
  replays 'a repeat has the body that all of them got' "$tmp/first"
fi

section 'Requests without a valid signature'

post "$book"
refused 'no signature' 401 signature-missing
check 'the refusal has WWW-Authenticate' 'HMAC-SHA256 header="X-Signature"' "$(header WWW-Authenticate)"
post "$book" -H "X-Signature: $(sign "$book ")"
refused 'the signature of another body' 401 signature-invalid
check 'the refusal has WWW-Authenticate' 'HMAC-SHA256 header="X-Signature"' "$(header WWW-Authenticate)"
post "$book" -H 'X-Signature: 12ab'
refused 'a signature that is not 64 hex digits' 401 signature-invalid
post '{bad' -H "X-Signature: $(sign "$book")" -H 'Idempotency-Key;'
refused 'a wrong signature of a malformed body with an empty key' 401 signature-invalid

section 'Other paths and methods'

exchange /nothing
refused 'an unknown path' 404 not-found
exchange /orders -X PUT
refused 'PUT /orders' 405 method-not-allowed
check 'the refusal has Allow' 'GET, HEAD, POST' "$(header Allow)"
exchange /problems/none
refused 'a problem that does not exist' 404 not-found
for code in idempotency-key-missing idempotency-key-invalid idempotency-key-reused invalid-body \
  signature-missing signature-invalid signature-expired not-found order-not-found method-not-allowed request-in-progress \
  body-too-large unsupported-media-type rate-limit-exceeded internal-error overloaded shutting-down; do
  exchange "/problems/$code"
  json="$status $(header Content-Type) $(member code)"
  exchange "/problems/$code" -H 'Accept: text/html,*/*'
  check "/problems/$code explains it, as JSON and as a page" \
    "200 application/json; charset=utf-8 $code, 200 text/html; charset=utf-8 $code" \
    "$json, $status $(header Content-Type) $(printf '%s\n' "$body" | sed -n 's/.*<title>[0-9]* \(.*\)<.*/\1/p')"
done

printf '\n%s passed, %s failed' "$passed" "$failed"
if [ "$skipped" -gt 0 ]; then printf ', %s skipped' "$skipped"; fi
echo
[ "$failed" -eq 0 ]
