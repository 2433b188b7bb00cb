// Sends one order until its response is final: go run order.go <idempotency key> <body>
package main

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

var key, body = os.Args[1], os.Args[2]
var orders = strings.TrimRight(getenv("ORDER_URL", "http://127.0.0.1:8080"), "/") + "/orders"

func getenv(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func hmacSHA256(secret []byte, text string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func encode(data []byte) string { return ":" + base64.StdEncoding.EncodeToString(data) + ":" }

// sign adds the headers of the signature: X-Signature, or with a key of the client a message signature.
func sign(header http.Header) {
	if os.Getenv("CLIENT_KEY") == "" {
		secret := []byte(getenv("HMAC_SECRET", "super-secret-key"))
		header.Set("X-Signature", hex.EncodeToString(hmacSHA256(secret, body)))
		return
	}
	var jwk struct{ Kid, Crv, K, D string }
	if err := json.Unmarshal(must(os.ReadFile(os.Getenv("CLIENT_KEY"))), &jwk); err != nil {
		log.Fatal(err)
	}
	if jwk.D != "" && jwk.Crv != "Ed25519" {
		log.Fatalf("%s: the key must be Ed25519 or HMAC, not %s", os.Getenv("CLIENT_KEY"), jwk.Crv)
	}
	digest := sha256.Sum256([]byte(body))
	header.Set("Content-Digest", "sha-256="+encode(digest[:]))
	components := [][2]string{
		{"@method", "POST"},
		{"@authority", strings.ToLower(must(url.Parse(orders)).Host)},
		{"@path", "/orders"},
		{"content-digest", header.Get("Content-Digest")},
		{"content-type", header.Get("Content-Type")},
		{"idempotency-key", key},
	}
	var base string
	var names []string
	for _, component := range components {
		names = append(names, `"`+component[0]+`"`)
		base += fmt.Sprintf("\"%s\": %s\n", component[0], component[1])
	}
	input := fmt.Sprintf(`(%s);created=%d;keyid="%s"`, strings.Join(names, " "), time.Now().Unix(), jwk.Kid)
	base += `"@signature-params": ` + input
	var signature []byte
	if jwk.D != "" { // Ed25519
		seed := must(base64.RawURLEncoding.DecodeString(jwk.D))
		signature = ed25519.Sign(ed25519.NewKeyFromSeed(seed), []byte(base))
	} else {
		signature = hmacSHA256(must(base64.RawURLEncoding.DecodeString(jwk.K)), base)
	}
	header.Set("Signature-Input", "sig1="+input)
	header.Set("Signature", "sig1="+encode(signature))
}

var client = http.Client{
	Timeout:       15 * time.Second, // longer than the wait=10 of Prefer
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// send sends one request. The status is 0 if no complete response arrives.
func send() (status int, retryAfter, text string) {
	request := must(http.NewRequest("POST", orders, strings.NewReader(body)))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	request.Header.Set("Prefer", "wait=10")
	sign(request.Header) // again for each attempt, because the signature has a time
	response, err := client.Do(request)
	if err != nil {
		log.Print(err)
		return 0, "", ""
	}
	defer response.Body.Close()
	bytes, err := io.ReadAll(response.Body)
	if err != nil {
		log.Print(err)
		return 0, "", ""
	}
	return response.StatusCode, response.Header.Get("Retry-After"), string(bytes)
}

func isRetryable(status int, retryAfter string) bool {
	return status == 0 || status == 408 || status == 429 || status >= 500 || status == 409 && retryAfter != ""
}

func main() {
	log.SetFlags(0) // no time in front of the messages
	rand.Seed(time.Now().UnixNano())
	endsAt := time.Now().Add(2 * time.Minute) // two windows of the rate limit
	for backOff := 200 * time.Millisecond; ; {
		status, retryAfter, text := send()
		if !isRetryable(status, retryAfter) {
			fmt.Println(text)
			if status != 201 {
				os.Exit(1)
			}
			return
		}
		seconds, _ := strconv.ParseUint(retryAfter, 10, 31) // 0 if it is missing, at most 2^31 - 1
		wait := time.Duration(seconds)*time.Second + time.Duration(rand.Int63n(int64(backOff)))
		result := "no response"
		if status != 0 {
			result = fmt.Sprintf("status %d", status)
		}
		log.Printf("%s; next attempt in %s", result, wait)
		if time.Now().Add(wait).After(endsAt) {
			os.Exit(1) // the result is unknown
		}
		time.Sleep(wait)
		if backOff *= 2; backOff > 10*time.Second {
			backOff = 10 * time.Second
		}
	}
}
