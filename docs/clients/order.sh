#!/usr/bin/env bash
# Sends one order until its response is final: order.sh <idempotency key> <body>
# Ed25519 needs OpenSSL 3.0 or later.
set -euo pipefail
url=${ORDER_URL:-http://127.0.0.1:8080} key=$1 body=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

member() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" "$CLIENT_KEY"; }
encode() { openssl base64 -A; }
decode() { # base64url without padding
  local text
  text=$(tr -- -_ +/)
  while [ $((${#text} % 4)) != 0 ]; do text="$text="; done
  printf %s "$text" | openssl base64 -d -A
}

# Signs a file to stdout. The algorithm is that of the key: Ed25519 if it has a member d, otherwise HMAC-SHA256.
sign_file() {
  local crv hex
  if [ -n "$(member d)" ]; then
    crv=$(member crv)
    if [ "$crv" != Ed25519 ]; then
      echo "$CLIENT_KEY: the key must be Ed25519 or HMAC, not $crv" >&2
      exit 1
    fi
    # PKCS #8: a constant, then the 32 bytes of the private key
    { printf '\060\056\002\001\000\060\005\006\003\053\145\160\004\042\004\040'; member d | decode; } >"$tmp/key"
    openssl pkeyutl -sign -rawin -keyform DER -inkey "$tmp/key" -in "$1"
  else
    hex=$(member k | decode | od -An -v -tx1 | tr -d ' \n')
    openssl dgst -sha256 -mac HMAC -binary -macopt "hexkey:$hex" "$1"
  fi
}

# Prints the headers of the signature: X-Signature, or with a key of the client a message signature.
# The output of openssl is assigned first: set -e does not see a failure in the arguments of a command.
signature() {
  if [ -z "${CLIENT_KEY:-}" ]; then
    local hex secret=${HMAC_SECRET:-super-secret-key}
    hex=$(printf %s "$body" | openssl dgst -sha256 -hmac "$secret" | sed 's/.* //')
    echo "X-Signature: $hex"
    return
  fi
  local digest authority input signature
  digest="sha-256=:$(printf %s "$body" | openssl dgst -sha256 -binary | encode):"
  authority=$(echo "${url#*://}" | tr A-Z a-z)
  input='("@method" "@authority" "@path" "content-digest" "content-type" "idempotency-key")'
  input="$input;created=$(date +%s);keyid=\"$(member kid)\""
  printf '"@method": POST\n"@authority": %s\n"@path": /orders\n"content-digest": %s\n' \
    "${authority%%/*}" "$digest" >"$tmp/base"
  printf '"content-type": application/json\n"idempotency-key": %s\n"@signature-params": %s' \
    "$key" "$input" >>"$tmp/base"
  sign_file "$tmp/base" >"$tmp/raw"
  signature=$(encode <"$tmp/raw")
  printf 'Content-Digest: %s\nSignature-Input: sig1=%s\nSignature: sig1=:%s:\n' \
    "$digest" "$input" "$signature"
}

back_off_ms=200
while true; do
  signature >"$tmp/signature" # made again for each attempt, because it has a time
  # 15 s: longer than the wait=10 of Prefer
  status=$(curl -q -sS --max-time 15 "${url%/}/orders" -o "$tmp/body" -D "$tmp/headers" -w '%{http_code}' \
    -H 'Content-Type: application/json' -H "Idempotency-Key: $key" -H 'Prefer: wait=10' \
    -H "@$tmp/signature" --data-raw "$body") || status=000 # no complete response
  retry_after=
  if [ "$status" != 000 ]; then
    retry_after=$(tr -d '\r' <"$tmp/headers" | awk -F '[: ]+' 'tolower($1) == "retry-after" { print $2 }')
  fi
  case $status-$retry_after in
    000-* | 408-* | 429-* | 5* | 409-?*) ;;
    *) break ;;
  esac
  case $retry_after in
    *[!0-9]* | '') retry_after=0 ;;
    ??????*) retry_after=99999 ;; # a larger number could overflow
  esac
  wait_ms=$((10#$retry_after * 1000 + RANDOM % back_off_ms)) # 10#: 08 is no octal number
  if [ "$status" = 000 ]; then result='no response'; else result="status $status"; fi
  echo "$result; next attempt in $wait_ms ms" >&2
  # 120 s: two windows of the rate limit. The result is then unknown.
  if [ $((SECONDS + wait_ms / 1000)) -ge 120 ]; then exit 1; fi
  sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
  back_off_ms=$((back_off_ms < 5000 ? back_off_ms * 2 : 10000))
done
cat "$tmp/body"
echo
[ "$status" = 201 ]
